"""The believed time of this computer: its clocks, checked by `clock.ClockWatch`, with alarms."""

from __future__ import annotations

import functools
import logging
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path

from tieline_connectors.command.model.clock import ClockWatch, Now
from tieline_connectors.command.model.ledger import CommandLedger

log = logging.getLogger(__name__)

_MONOTONIC = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
"""It also advances while the computer sleeps."""
_CHECK_EVERY = 1_000_000
"""Microseconds."""


def read_clocks() -> Now:
    """Return what both clocks of this computer say."""
    return Now(time.time_ns() // 1000, time.clock_gettime_ns(_MONOTONIC) // 1000, boot=_boot())


@functools.cache
def _boot() -> str:
    """Return a name of this boot of the computer; of this process if that cannot be read."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except (OSError, ValueError):
        return str(uuid.uuid4())


class WallClock:
    """Returns the believed time, and logs each doubt about it. Called from both threads of a task.

    A doubt is logged when it begins and when it ends. ``count`` gets ``clock.untrusted`` for each doubt, and
    ``clock.trusted`` when it ends.
    """

    def __init__(
        self,
        watch: ClockWatch,
        clocks: Callable[[], Now],
        confirmed: Callable[[Now], bool],
        count: Callable[[str, int], None],
    ) -> None:
        """``clocks`` reads both clocks. ``confirmed`` returns whether NTP or an operator confirms them."""
        self._watch = watch
        self._is_confirmed_by = confirmed
        self._checked_at, self._is_confirmed = -_CHECK_EVERY, False
        self._clocks = clocks
        self._count = count
        self._lock = threading.Lock()
        self._doubt = ""

    def now(self) -> Now:
        """Return the moment."""
        with self._lock:
            return self._log_doubt(self._read())

    def restore(self, ledger: CommandLedger) -> Now:
        """Return the moment, after learning what a ledger knows of this computer's clock."""
        with self._lock:
            clock = ledger.last_clock(self._read().boot)
            if clock is not None:
                self._watch.restore(clock)
            return self._log_doubt(self._read())

    def close(self) -> None:
        """End a doubt in the counters: the task's next clock has one of its own."""
        with self._lock:
            if self._doubt:
                self._count("clock.trusted", 1)
                self._doubt = ""

    def _read(self) -> Now:
        clocks = self._clocks()
        now = self._watch.read(*clocks[:2], clocks.boot)
        if clocks.monotonic >= self._checked_at + _CHECK_EVERY:
            self._checked_at, self._is_confirmed = clocks.monotonic, self._is_confirmed_by(clocks)
            if now.doubt and self._is_confirmed:
                self._watch.confirm(*clocks[:2])
                now = self._watch.read(*clocks[:2], clocks.boot)
        return now._replace(confirmed=self._is_confirmed and not now.doubt)

    def _log_doubt(self, now: Now) -> Now:
        if now.doubt and not self._doubt:
            log.error("CLOCK_UNTRUSTED: %s; commands wait until it is set back, or is believed", now.doubt)
            self._count("clock.untrusted", 1)
        elif self._doubt and not now.doubt:
            log.warning("the clock is believed again")
            self._count("clock.trusted", 1)
        self._doubt = now.doubt
        return now
