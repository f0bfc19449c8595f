"""Alarms: errors that an operator must see, and that can come thousands of times a second."""

from __future__ import annotations

import logging

from tieline.runtime.task.clock import Clock, Counters

log = logging.getLogger(__name__)
_EVERY = 60.0


class Alarms:
    """Logs an alarm of each kind at most once a minute, with the task's counters. Any thread may call it."""

    def __init__(self, prefix: str, counters: Counters, clock: Clock) -> None:
        self._prefix = prefix
        self._counters = counters
        self._clock = clock
        self._raised: dict[str, float] = {}

    def raise_alarm(self, kind: str, message: str) -> None:
        """Log it, unless the last alarm of its kind is less than a minute old."""
        now = self._clock.now()
        if now - self._raised.get(kind, float("-inf")) >= _EVERY:
            self._raised[kind] = now
            log.error(message, extra={"alarm": f"{self._prefix}.{kind}", "counters": self._counters.all()})
