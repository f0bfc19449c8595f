"""Reduces values, oldest first, to the first, minimum, maximum and last of each interval; pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tieline_connectors.points.questions import Bucket


class Reducer:
    """Collects buckets of one width, which begin at multiples of it."""

    def __init__(self, width: int) -> None:
        self.skipped = False
        """Whether a value was not a number."""
        self._width = width
        self._buckets: list[Bucket] = []
        self._start = self._end = -(2**63)
        self._first = self._minimum = self._maximum = self._last = 0.0

    def buckets(self) -> Sequence[Bucket]:
        """Return all buckets. No value may be added afterwards."""
        self._finish_bucket()
        return self._buckets

    def add_readings(self, base: int, rows: Sequence[tuple[int, float | None, int]]) -> None:
        """Add readings ``(time - base, number, whether it is null)``.

        This loop decides how fast a chart is.
        """
        end = self._end - base
        minimum, maximum, last = self._minimum, self._maximum, self._last
        for at, number, is_null in rows:
            if number is None:
                if not is_null:
                    self.skipped = True
                continue
            if at >= end:
                self._minimum, self._maximum, self._last = minimum, maximum, last
                self._begin_bucket(base + at)
                end = self._end - base
                self._first = minimum = maximum = number
            elif number < minimum:
                minimum = number
            elif number > maximum:
                maximum = number
            last = number
        self._minimum, self._maximum, self._last = minimum, maximum, last

    def add_rollups(self, rows: Sequence[Any]) -> None:
        """Add rollups ``(start, first, minimum, maximum, last, skipped)``, none of which crosses a bucket."""
        for start, first, minimum, maximum, last, skipped in rows:
            self.skipped = self.skipped or bool(skipped)
            if minimum is None:
                continue
            if start >= self._end:
                self._begin_bucket(start)
                self._first, self._minimum, self._maximum = first, minimum, maximum
            else:
                self._minimum = min(self._minimum, minimum)
                self._maximum = max(self._maximum, maximum)
            self._last = last

    def _begin_bucket(self, time: int) -> None:
        self._finish_bucket()
        self._start = time // self._width * self._width
        self._end = self._start + self._width

    def _finish_bucket(self) -> None:
        if self._end > self._start:
            numbers = (self._first, self._minimum, self._maximum, self._last)
            self._buckets.append(Bucket(self._start, *map(float, numbers)))
