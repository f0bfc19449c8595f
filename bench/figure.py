"""One figure, one JSON line; and runs taken in turns, so that a busy minute falls on all of them alike."""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any


def figure(name: str, value: float | None, unit: str, goal: str = "", **facts: Any) -> None:
    """Print a figure. ``goal``: a bound such as ``">= 0.6"``; none: the figure is told, not judged.

    ``facts``: what one must know to read it (number of runs, the single values, what limited it). A
    ``value`` of none was not measured, and ``facts`` say why.
    """
    line: dict[str, Any] = {"name": name, "value": _rounded(value), "unit": unit, "goal": goal or None}
    line["met"] = _met(value, goal)
    print(json.dumps(line | facts), flush=True)


def say(text: str) -> None:
    """Progress, beside the figures."""
    print(text, file=sys.stderr, flush=True)


def in_turns(cases: Mapping[str, Callable[[], dict[str, float]]], rounds: int) -> dict[str, list[Any]]:
    """Run all cases, then all again, …; each case's results. Every other round goes backwards."""
    results: dict[str, list[Any]] = {name: [] for name in cases}
    for turn in range(rounds):
        for name in list(cases)[:: -1 if turn % 2 else 1]:
            result = cases[name]()
            results[name].append(result)
            say(f"  round {turn + 1} of {rounds}: {name}: {result}")
    return results


def median(results: Sequence[Mapping[str, float]], key: str) -> float:
    """The median of one value of all runs."""
    return statistics.median(result[key] for result in results)


def ratio(ours: Sequence[Mapping[str, float]], theirs: Sequence[Mapping[str, float]], key: str) -> float:
    """The median of the ratios of the runs that stood side by side."""
    return statistics.median(a[key] / b[key] for a, b in zip(ours, theirs, strict=True))


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")


def _met(value: float | None, goal: str) -> bool | None:
    if not goal or value is None:
        return None
    sign, bound = goal.split()
    return value >= float(bound) if sign == ">=" else value <= float(bound)
