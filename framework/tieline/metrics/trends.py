"""What metrics remember from scrape to scrape: the highest totals, and how fast spools grow. Pure."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Hashable

_WINDOW = 600.0  # seconds over which the growth of a spool is measured
_SHORTEST = 30.0  # seconds before which nothing is said about the growth
_STEP = 5.0  # seconds between two samples that are kept


class Trends:
    """Used by one thread at a time."""

    def __init__(self) -> None:
        self._highest: dict[Hashable, int] = {}
        self._spools: dict[str, SpoolForecast] = {}
        self._seen: set[Hashable] = set()

    def highest(self, key: Hashable, value: int) -> int:
        """Return the highest value that this key has had.

        Records that a sink releases in a rebalance are subtracted from what it received. Prometheus takes a
        counter that falls for one that was reset, and would count all records again.
        """
        value = self._highest[key] = max(value, self._highest.get(key, 0))
        return value

    def is_new(self, key: Hashable) -> bool:
        """Return whether this is the first call with this key."""
        is_new = key not in self._seen
        self._seen.add(key)
        return is_new

    def hours_until_full(self, connector: str, now: float, used: int, limit: int) -> float:
        """Return the forecast for a connector's spools; ``now`` in seconds, monotonic."""
        return self._spools.setdefault(connector, SpoolForecast()).hours_until_full(now, used, limit)


class SpoolForecast:
    """Forecasts when a spool is full, from its growth in the last ten minutes."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, int]] = deque()

    def hours_until_full(self, now: float, used: int, limit: int) -> float:
        """Note how many bytes are used now; return the hours until ``limit``, infinite without growth."""
        samples = self._samples
        if not samples or now - samples[-1][0] >= _STEP:
            samples.append((now, used))
        while len(samples) > 1 and now - samples[0][0] > _WINDOW:
            samples.popleft()
        if used >= limit:
            return 0.0
        since, before = samples[0]
        if now - since < _SHORTEST or used <= before:
            return math.inf
        return (limit - used) / ((used - before) / (now - since)) / 3600
