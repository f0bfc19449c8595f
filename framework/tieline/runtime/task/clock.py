"""The clock of a task, and its counters; tests give both their own."""

from __future__ import annotations

import threading
import time
from collections import Counter


class Counters:
    """Named numbers that only grow; any thread may add and read."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._numbers: Counter[str] = Counter()

    def add(self, name: str, number: int = 1) -> None:
        """Add to one."""
        with self._lock:
            self._numbers[name] += number

    def __getitem__(self, name: str) -> int:
        """The number now; 0 if nothing was added yet."""
        return self._numbers[name]

    def all(self) -> dict[str, int]:
        """Each by its name."""
        with self._lock:
            return dict(self._numbers)


class Clock:
    """Monotonic seconds, the time of day, and waiting that ends early when the task is asked to stop."""

    def now(self) -> float:
        """Seconds from some fixed moment."""
        return time.monotonic()

    def wall_ms(self) -> int:
        """Milliseconds since 1970, UTC."""
        return time.time_ns() // 1_000_000

    def wait(self, stop: threading.Event, seconds: float) -> bool:
        """Wait; true if the task was asked to stop."""
        return stop.wait(seconds)
