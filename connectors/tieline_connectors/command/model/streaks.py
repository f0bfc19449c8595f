"""Count how many of a device's last commands have failed, from the results that a ledger holds; pure.

A circuit breaker needs no state of its own: it is open for a time after the last of several failures in a
row, and a success closes it. So it is the same after a restart, and on another worker.
"""

from __future__ import annotations

import bisect
from collections.abc import Collection, Iterator
from typing import NamedTuple

from tieline_connectors.command.model.command import Result
from tieline_connectors.command.model.entry import RESTORED
from tieline_connectors.command.model.point import device_keys, key_of


class Streak(NamedTuple):
    """How many commands of a device have failed in a row, and when the last one did; microseconds."""

    failures: int = 0
    last_at: int = 0


class Streaks:
    """The streaks of all devices of a ledger; its results may come in any order."""

    def __init__(self) -> None:
        self._worked_at: dict[str, int] = {}
        self._failures: dict[str, list[tuple[int, str]]] = {}

    def __iter__(self) -> Iterator[tuple[str, Streak]]:
        return ((device, self.get(device)) for device in self._failures)

    def get(self, device: str) -> Streak:
        """Return the streak of a device."""
        failures = self._failures.get(key_of(device))
        return Streak(len(failures), failures[-1][0]) if failures else Streak()

    def add(self, result: Result, ended_at: int) -> None:
        """Add the result of a command that was started; ``ended_at``: when it ended, in µs since 1970."""
        for device in frozenset().union(*(device_keys(write.point) for write in result.writes)):
            worked = shows_working(result, device)
            if worked:
                self._worked_at[device] = max(ended_at, self._worked_at.get(device, 0))
                later = [failure for failure in self._failures.pop(device, []) if failure[0] > ended_at]
                if later:
                    self._failures[device] = later
            elif worked is False and ended_at > self._worked_at.get(device, 0):
                bisect.insort(self._failures.setdefault(device, []), (ended_at, result.command_id))

    def remove(self, command_ids: Collection[str]) -> None:
        """Remove the failures of commands that the ledger no longer has."""
        for device, failures in list(self._failures.items()):
            left = [failure for failure in failures if failure[1] not in command_ids]
            if left:
                self._failures[device] = left
            else:
                del self._failures[device]


def shows_working(result: Result, device: str) -> bool | None:
    """Return whether a result shows that a device works or does not; ``None`` if it shows neither.

    A write that did not happen for another reason shows neither: a worker that died or was restored, an
    unavailable platform, an expiry.
    """
    writes = [w for w in result.writes if device in device_keys(w.point)]
    if result.state == "SUCCEEDED":
        return True
    if result.state == "FAILED" and result.reason_code == "DEVICE_REFUSED":
        return False if any(w.outcome == "NOT_WRITTEN" and w.reason for w in writes) else None
    lost = result.reason_code in ("CRASHED", RESTORED)
    if result.state == "MISMATCH" or (result.state == "UNKNOWN" and not lost):
        if any(w.outcome in ("DIFFERENT", "UNKNOWN", "UNVERIFIED") for w in writes):
            return False
        return True if all(w.outcome == "VERIFIED" for w in writes) else None
    return None
