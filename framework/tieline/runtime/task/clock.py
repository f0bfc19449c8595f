"""The clock of a task, and its counters; tests replace both."""

from __future__ import annotations

import threading
import time
from collections import Counter


class Counters:
    """Named numbers that only grow; any thread may call."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._numbers: Counter[str] = Counter()

    def add(self, name: str, number: int = 1) -> None:
        """Add to a number."""
        with self._lock:
            self._numbers[name] += number

    def __getitem__(self, name: str) -> int:
        """Return a number; 0 if nothing was added yet."""
        return self._numbers[name]

    def all(self) -> dict[str, int]:
        """Return each number by its name."""
        with self._lock:
            return dict(self._numbers)


class Clock:
    """Monotonic seconds, the time of day, and waiting that ends early when the task is asked to stop."""

    def now(self) -> float:
        """Return seconds since a fixed moment."""
        return time.monotonic()

    def wall_ms(self) -> int:
        """Return milliseconds since 1970, UTC."""
        return time.time_ns() // 1_000_000

    def wait(self, stop: threading.Event, seconds: float) -> bool:
        """Wait; return whether the task was asked to stop."""
        return stop.wait(seconds)
