"""How often in a row the commands of a device have failed, from the ends that a ledger holds; pure.

A circuit breaker needs no state of its own: it is open for some time after the last of so many failures
in a row, and whatever ends well closes it. So it is the same after a restart, and on another worker.
"""

from __future__ import annotations

import bisect
from collections.abc import Collection, Iterator
from typing import NamedTuple

from tieline_connectors.command.model.command import Result
from tieline_connectors.command.model.point import device_keys, key_of


class Streak(NamedTuple):
    """So many commands of a device have failed one after the other, the last one then."""

    failures: int = 0
    last_at: int = 0


class Streaks:
    """Those of all devices of a ledger; its ends may come in any order."""

    def __init__(self) -> None:
        self._worked_at: dict[str, int] = {}
        self._failed: dict[str, list[tuple[int, str]]] = {}

    def __iter__(self) -> Iterator[tuple[str, Streak]]:
        return ((device, self.of(device)) for device in self._failed)

    def of(self, device: str) -> Streak:
        """That of a device."""
        failed = self._failed.get(key_of(device))
        return Streak(len(failed), failed[-1][0]) if failed else Streak()

    def note(self, result: Result, at: int) -> None:
        """A command that was started has ended so, then."""
        for device in frozenset().union(*(device_keys(write.point) for write in result.writes)):
            worked = has_worked(result, device)
            if worked:
                self._worked_at[device] = max(at, self._worked_at.get(device, 0))
                later = [one for one in self._failed.pop(device, []) if one[0] > at]
                if later:
                    self._failed[device] = later
            elif worked is False and at > self._worked_at.get(device, 0):
                bisect.insort(self._failed.setdefault(device, []), (at, result.command_id))

    def forget(self, command_ids: Collection[str]) -> None:
        """These commands are in the ledger no longer."""
        for device, failed in list(self._failed.items()):
            left = [one for one in failed if one[1] not in command_ids]
            if left:
                self._failed[device] = left
            else:
                del self._failed[device]


def has_worked(result: Result, device: str) -> bool | None:
    """Whether a command shows that a device works, or that it does not; none: it shows neither.

    It shows neither what was never written for another reason than the device's own: a worker that died,
    a platform that was away, an expiry.
    """
    writes = [w for w in result.writes if device in device_keys(w.point)]
    if result.state == "SUCCEEDED":
        return True
    if result.state == "FAILED" and result.reason_code == "DEVICE_REFUSED":
        return False if any(w.outcome == "NOT_WRITTEN" and w.reason for w in writes) else None
    if result.state == "MISMATCH" or (result.state == "UNKNOWN" and result.reason_code != "CRASHED"):
        if any(w.outcome in ("DIFFERENT", "UNKNOWN", "UNVERIFIED") for w in writes):
            return False
        return True if all(w.outcome == "VERIFIED" for w in writes) else None
    return None
