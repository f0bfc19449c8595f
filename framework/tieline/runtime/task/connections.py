"""The outages of a task, since when and why: logged at once, at growing intervals, and at the end."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tieline.times import iso_utc, span_text

log = logging.getLogger(__name__)

FIRST_REMINDER = 60.0
LAST_REMINDER = 3600.0
_REASONS = 8
"""So many reasons of one outage are logged at once; further ones only show in the state."""


@dataclass
class _Outage:
    since: float
    since_ms: int
    reason: str
    words: str
    logged_at: float
    pause: float = FIRST_REMINDER
    reasons: set[str] = field(default_factory=set)


class Connections:
    """Notes and logs the outages of one task, by what it cannot reach. Any thread may call it.

    ``now`` returns monotonic seconds, ``wall_ms`` the time of day in ms since 1970.
    """

    def __init__(self, now: Callable[[], float], wall_ms: Callable[[], int]) -> None:
        self._now = now
        self._wall_ms = wall_ms
        self._lock = threading.Lock()
        self._outages: dict[str, _Outage] = {}
        self.recovered_ms: int | None = None
        """When the last outage ended, in ms since 1970; ``None`` before the first one ended."""

    def not_connected(self, system: str, reason: str, *, logged: bool = False) -> None:
        """Note a failed attempt. ``logged``: the caller has logged that it waits."""
        with self._lock:
            outage = self._outages.get(system)
            if outage is None:
                now = self._now()
                words = "waiting for" if logged else "not connected to"
                outage = self._outages[system] = _Outage(now, self._wall_ms(), reason, words, now)
            outage.reason = reason
            new = reason not in outage.reasons and len(outage.reasons) < _REASONS
            outage.reasons.add(reason)
        if new and not logged:
            log.warning("not connected to %s: %s", system, reason)

    def connected(self, system: str, *, logged: bool = False) -> None:
        """Note that ``system`` is connected, perhaps again. ``logged``: the caller has logged that."""
        with self._lock:
            outage = self._outages.pop(system, None)
            if outage is not None:
                self.recovered_ms = self._wall_ms()
        if outage is not None and not logged:
            log.info("connected to %s again after %s", system, span_text(self._now() - outage.since))

    def remind(self) -> None:
        """Log outages again that continue, if that is due. Called at intervals."""
        due = []
        with self._lock:
            now = self._now()
            for system, outage in self._outages.items():
                if now - outage.logged_at >= outage.pause:
                    outage.logged_at, outage.pause = now, min(outage.pause * 4, LAST_REMINDER)
                    span = span_text(now - outage.since)
                    due.append((outage.words, system, iso_utc(outage.since_ms), span, outage.reason))
        for reminder in due:
            log.warning("%s %s since %s (for %s): %s", *reminder)

    def all(self) -> list[dict[str, Any]]:
        """Return ``to``, ``since`` (ISO 8601, UTC) and ``because`` of each outage."""
        with self._lock:
            return [
                {"to": system, "since": iso_utc(outage.since_ms), "because": outage.reason}
                for system, outage in sorted(self._outages.items())
            ]
