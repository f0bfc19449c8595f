"""The durations that a task observes, as distributions."""

from __future__ import annotations

import threading
from bisect import bisect_left

from tieline.metrics.snapshot import BUCKETS, Distribution


class Durations:
    """Distributions by name; any thread may call."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[str, list[int]] = {}
        self._totals: dict[str, float] = {}

    def observe(self, name: str, seconds: float) -> None:
        """Add a duration; one below 0 counts as 0."""
        seconds = max(0.0, seconds)
        with self._lock:
            counts = self._counts.setdefault(name, [0] * (len(BUCKETS) + 1))
            counts[bisect_left(BUCKETS, seconds)] += 1
            self._totals[name] = self._totals.get(name, 0.0) + seconds

    def all(self) -> dict[str, Distribution]:
        """Return each distribution by its name."""
        with self._lock:
            return {
                name: Distribution(tuple(counts), self._totals[name]) for name, counts in self._counts.items()
            }
