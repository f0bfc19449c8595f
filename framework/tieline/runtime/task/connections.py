"""The outages of a task, since when and why: logged at once, at growing intervals, and at the end."""

from __future__ import annotations

import datetime as dt
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

log = logging.getLogger(__name__)

FIRST_REMINDER = 60.0
LAST_REMINDER = 3600.0
_REASONS = 8
"""So many reasons of one outage are logged at once; further ones only show in the state."""


@dataclass
class _Outage:
    since: float
    since_ms: int
    because: str
    words: str
    logged_at: float
    pause: float = FIRST_REMINDER
    reasons: set[str] = field(default_factory=set)


class Connections:
    """The outages of one task, by what it cannot reach. Any thread may call it.

    ``now`` returns monotonic seconds, ``wall_ms`` the time of day in ms since 1970.
    """

    def __init__(self, now: Callable[[], float], wall_ms: Callable[[], int]) -> None:
        self._now = now
        self._wall_ms = wall_ms
        self._lock = threading.Lock()
        self._outages: dict[str, _Outage] = {}

    def not_connected(self, to: str, because: str, *, logged: bool = False) -> None:
        """Note a failed attempt. ``logged``: the caller has logged that it waits."""
        with self._lock:
            outage = self._outages.get(to)
            if outage is None:
                now = self._now()
                words = "waiting for" if logged else "not connected to"
                outage = self._outages[to] = _Outage(now, self._wall_ms(), because, words, now)
            outage.because = because
            new = because not in outage.reasons and len(outage.reasons) < _REASONS
            outage.reasons.add(because)
        if new and not logged:
            log.warning("not connected to %s: %s", to, because)

    def connected(self, to: str, *, logged: bool = False) -> None:
        """Note that ``to`` is connected, perhaps again. ``logged``: the caller has logged that."""
        with self._lock:
            outage = self._outages.pop(to, None)
        if outage is not None and not logged:
            log.info("connected to %s again after %s", to, span_text(self._now() - outage.since))

    def remind(self) -> None:
        """Log outages again that continue, if that is due. Called at intervals."""
        due = []
        with self._lock:
            now = self._now()
            for to, outage in self._outages.items():
                if now - outage.logged_at >= outage.pause:
                    outage.logged_at, outage.pause = now, min(outage.pause * 4, LAST_REMINDER)
                    span = span_text(now - outage.since)
                    due.append((outage.words, to, _time(outage.since_ms), span, outage.because))
        for reminder in due:
            log.warning("%s %s since %s (for %s): %s", *reminder)

    def all(self) -> list[dict[str, Any]]:
        """Return ``to``, ``since`` (ISO 8601, UTC) and ``because`` of each outage."""
        with self._lock:
            return [
                {"to": to, "since": _time(outage.since_ms), "because": outage.because}
                for to, outage in sorted(self._outages.items())
            ]


def _time(ms: int) -> str:
    try:
        return dt.datetime.fromtimestamp(ms / 1000, dt.timezone.utc).isoformat(timespec="seconds")
    except (ValueError, OverflowError, OSError):  # a clock that is wrong
        return f"{ms} ms"


def span_text(seconds: float) -> str:
    """Return a duration as text, such as 4 s, 12 min, 3 h 20 min, 2 d 4 h."""
    minutes = int(seconds) // 60
    if minutes < 1:
        return f"{seconds:.0f} s"
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 24 * 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes // 1440} d {minutes % 1440 // 60} h"
