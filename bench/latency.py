"""Latencies of messages that arrive in the order in which they were sent."""

from __future__ import annotations

import statistics
from collections.abc import Sequence


def calculate_latencies(
    sent: Sequence[float], arrived: Sequence[tuple[float, int]], first: int
) -> list[float]:
    """Return the seconds from sending to arrival of each message from number ``first`` on.

    ``arrived`` has moments, each with the number of messages that had arrived by then.
    """
    seconds: list[float] = []
    for moment, count in arrived:
        seconds += [moment - sent_at for sent_at in sent[len(seconds) : count]]
    return seconds[first:]


def p99_ms(seconds: Sequence[float]) -> float:
    """Return the 99th percentile in milliseconds."""
    return statistics.quantiles(seconds, n=100)[98] * 1000


def p50_ms(seconds: Sequence[float]) -> float:
    """Return the median in milliseconds."""
    return statistics.median(seconds) * 1000
