"""Latencies of messages that arrive in the order in which they were sent."""

from __future__ import annotations

import statistics
from collections.abc import Sequence


def latencies(sent: Sequence[float], reached: Sequence[tuple[float, int]], first: int) -> list[float]:
    """Seconds from sending to arrival, of each message from number ``first`` on.

    ``reached``: moments, and how many messages in all were there then.
    """
    found: list[float] = []
    for moment, there in reached:
        found += [moment - at for at in sent[len(found) : there]]
    return found[first:]


def p99_ms(seconds: Sequence[float]) -> float:
    """99 of 100 take no longer, in milliseconds."""
    return statistics.quantiles(seconds, n=100)[98] * 1000


def p50_ms(seconds: Sequence[float]) -> float:
    """Half of them take no longer, in milliseconds."""
    return statistics.median(seconds) * 1000
