"""Cache what was computed, within a limit."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

T = TypeVar("T")

_MIN_ENTRIES = 8


class Cache(Generic[T]):
    """Results by key, of which the least recently used are dropped. Safe for many threads.

    ``max_weight``: the weight of all results together. The newest eight stay, whatever their weight.

    Two threads may compute the same result at once, since nothing is computed under the lock.
    """

    def __init__(self, max_weight: int) -> None:
        self._max_weight = max_weight
        self._weight = 0
        self._results: OrderedDict[Hashable, tuple[T, int]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable, weight: int, compute: Callable[[], T]) -> T:
        """Return the cached result, or compute it. An exception of ``compute`` is not cached."""
        with self._lock:
            cached = self._results.get(key)
            if cached is not None:
                self._results.move_to_end(key)
                return cached[0]
        result = compute()
        with self._lock:
            if key not in self._results:
                self._results[key] = result, weight
                self._weight += weight
                while self._weight > self._max_weight and len(self._results) > _MIN_ENTRIES:
                    _, (_, dropped) = self._results.popitem(last=False)
                    self._weight -= dropped
        return result
