"""From the intervals of a store to what a chart draws: a line with gaps, inside a band; pure."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

from tieline_connectors.points.questions import Bucket, Series, Value

_DENSE = 1.5
_MISSING = 3
_END = 0.98
"""Where in an interval its last value is drawn, so that it stays before the next one's first."""


class Line(NamedTuple):
    """Columns of equal length; ``None`` is a gap. ``times`` are in seconds, ``gap`` as well."""

    times: Sequence[float]
    values: Sequence[float | None]
    low: Sequence[float | None]
    high: Sequence[float | None]
    gap: float
    """Two values that are farther apart have a gap between them; 0: unknown."""


def line_of(series: Series) -> Line:
    """Return a point's line and band.

    Without rollups each value is one point of the line. With them, the line joins the first and the last
    value of each interval, and the band reaches from its minimum to its maximum.
    """
    gap = gap_of(series)
    times: list[float] = []
    values: list[float | None] = []
    low: list[float | None] = []
    high: list[float | None] = []

    def add(time: float, value: float | None, minimum: float | None, maximum: float | None) -> None:
        times.append(time / 1_000_000)
        values.append(value)
        low.append(minimum)
        high.append(maximum)

    previous: Bucket | None = None
    for bucket in series.buckets:
        if previous is not None and gap and bucket.start - previous.start > gap:
            add((previous.start + series.width + bucket.start) / 2, None, None, None)
        add(bucket.start, bucket.first, bucket.minimum, bucket.maximum)
        if series.width:
            add(bucket.start + series.width * _END, bucket.last, bucket.minimum, bucket.maximum)
        previous = bucket
    return Line(times, values, low, high, gap / 1_000_000)


def gap_of(series: Series) -> float:
    """Return the distance in microseconds from which two intervals have a gap between them; 0: unknown.

    Intervals may be shorter than the distance of two values; then the values' own distance counts.
    """
    starts = [bucket.start for bucket in series.buckets]
    distances = [later - earlier for earlier, later in itertools.pairwise(starts)]
    if not distances:
        return _DENSE * series.width
    usual = statistics.median(distances)
    return _DENSE * series.width if usual <= _DENSE * series.width else _MISSING * usual


def changes_of(newest_first: Sequence[Value]) -> list[Value]:
    """Return the values that differ from the one before, newest first; the oldest one is kept."""
    oldest_first = newest_first[::-1]
    changes = [
        value
        for number, value in enumerate(oldest_first)
        if number == 0 or not _is_equal(value.value, oldest_first[number - 1].value)
    ]
    return changes[::-1]


def _is_equal(first: object, second: object) -> bool:
    if isinstance(first, float) and isinstance(second, float) and math.isnan(first) and math.isnan(second):
        return True
    return type(first) is type(second) and first == second
