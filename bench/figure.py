"""Figures as JSON lines, and runs that take turns, so that a busy minute affects all of them."""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any


def print_figure(name: str, value: float | None, unit: str, goal: str = "", **facts: Any) -> None:
    """Print a figure as a JSON line.

    ``goal`` is a bound such as ``">= 0.6"``; without one nothing is promised. ``facts`` are needed to
    interpret the figure: number of runs, the single values, what limited it. A ``value`` of ``None`` was not
    measured, and ``facts`` say why.
    """
    line: dict[str, Any] = {"name": name, "value": _round(value), "unit": unit, "goal": goal or None}
    line["met"] = _meets(value, goal)
    print(json.dumps(line | facts), flush=True)


def say(text: str) -> None:
    """Print progress to standard error, separate from the figures."""
    print(text, file=sys.stderr, flush=True)


def run_in_turns(cases: Mapping[str, Callable[[], dict[str, float]]], rounds: int) -> dict[str, list[Any]]:
    """Run all cases in each round, every other round in reverse order; return the results of each case."""
    results: dict[str, list[Any]] = {name: [] for name in cases}
    for turn in range(rounds):
        for name in list(cases)[:: -1 if turn % 2 else 1]:
            result = cases[name]()
            results[name].append(result)
            say(f"  round {turn + 1} of {rounds}: {name}: {result}")
    return results


def median(results: Sequence[Mapping[str, float]], key: str) -> float:
    """Return the median of one value of all runs."""
    return statistics.median(result[key] for result in results)


def ratio(
    numerators: Sequence[Mapping[str, float]], denominators: Sequence[Mapping[str, float]], key: str
) -> float:
    """Return the median of the rounds' ratios."""
    return statistics.median(a[key] / b[key] for a, b in zip(numerators, denominators, strict=True))


def _round(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")


def _meets(value: float | None, goal: str) -> bool | None:
    if not goal or value is None:
        return None
    sign, bound = goal.split()
    return value >= float(bound) if sign == ">=" else value <= float(bound)
