"""The time that is believed on this computer: its clocks, watched (`clock.ClockWatch`), and alarms."""

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
"""It also goes on while the computer sleeps."""
_ASKED_EVERY = 1_000_000
"""Microseconds."""


def clocks() -> Now:
    """Both clocks of this machine, as they are."""
    return Now(time.time_ns() // 1000, time.clock_gettime_ns(_MONOTONIC) // 1000, boot=_boot())


@functools.cache
def _boot() -> str:
    """Names this start of the computer; where that cannot be read, this process."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except (OSError, ValueError):
        return str(uuid.uuid4())


class WallClock:
    """Asked from both threads of a task. A doubt about the clock is logged when it begins and when it ends.

    ``count`` gets ``clock.untrusted`` for each.
    """

    def __init__(
        self,
        watch: ClockWatch,
        shown: Callable[[], Now],
        vouched: Callable[[Now], bool],
        count: Callable[[str, int], None],
    ) -> None:
        """``shown``: what the clocks say. ``vouched``: whether something says that it is right."""
        self._watch = watch
        self._vouched = vouched
        self._asked_at, self._is_vouched = -_ASKED_EVERY, False
        self._shown = shown
        self._count = count
        self._lock = threading.Lock()
        self._doubt = ""

    def now(self) -> Now:
        """The moment."""
        with self._lock:
            return self._alarmed(self._read())

    def recall(self, ledger: CommandLedger) -> Now:
        """The moment, after what a ledger knows of this computer's clock."""
        with self._lock:
            seen = ledger.last_seen(self._read().boot)
            if seen is not None:
                self._watch.recall(seen)
            return self._alarmed(self._read())

    def _read(self) -> Now:
        shown = self._shown()
        now = self._watch.read(*shown[:2], shown.boot)
        if shown.monotonic >= self._asked_at + _ASKED_EVERY:
            self._asked_at, self._is_vouched = shown.monotonic, self._vouched(shown)
            if now.doubt and self._is_vouched:
                self._watch.vouch(*shown[:2])
                now = self._watch.read(*shown[:2], shown.boot)
        return now._replace(vouched=self._is_vouched and not now.doubt)

    def _alarmed(self, now: Now) -> Now:
        if now.doubt and not self._doubt:
            log.error("CLOCK_UNTRUSTED: %s; nothing is begun until it is back, or is believed", now.doubt)
            self._count("clock.untrusted", 1)
        elif self._doubt and not now.doubt:
            log.warning("the clock is believed again")
        self._doubt = now.doubt
        return now
