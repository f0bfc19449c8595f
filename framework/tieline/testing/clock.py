"""A clock that only moves when it is read, for tests of backoff, intervals and outages."""

from __future__ import annotations

import threading

from tieline.runtime.task.clock import Clock


class FakeClock(Clock):
    """Each reading advances it by ``step`` seconds, each wait by its time-out; no thread really waits."""

    def __init__(self, step: float = 0.0) -> None:
        self._now = 0.0
        self._step = step
        self._lock = threading.Lock()
        self.waits: list[float] = []

    def now(self) -> float:
        """Return the seconds since it was created."""
        with self._lock:
            self._now += self._step
            return self._now

    def wall_ms(self) -> int:
        """Return milliseconds since 1970; it starts on 14 November 2023."""
        return 1_700_000_000_000 + int(self._now * 1000)

    def wait(self, stop: threading.Event, seconds: float) -> bool:
        """Advance; return whether the task was asked to stop."""
        with self._lock:
            self._now += seconds
            self.waits.append(seconds)
        return stop.is_set()
