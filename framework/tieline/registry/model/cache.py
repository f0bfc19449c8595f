"""What was computed once, kept within a limit."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class Remembered(Generic[T]):
    """Results by key, until newer ones outweigh them; the newest eight always stay. Safe for many threads.

    Two threads may compute the same at once: nothing is computed under the lock.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._weight = 0
        self._found: OrderedDict[Hashable, tuple[T, int]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable, weight: int, make: Callable[[], T]) -> T:
        """The result that ``make`` gave, or gives. What it raises is not remembered."""
        with self._lock:
            found = self._found.get(key)
            if found is not None:
                self._found.move_to_end(key)
                return found[0]
        made = make()
        with self._lock:
            if key not in self._found:
                self._found[key] = made, weight
                self._weight += weight
                while self._weight > self._most and len(self._found) > 8:
                    self._weight -= self._found.popitem(last=False)[1][1]
        return made
