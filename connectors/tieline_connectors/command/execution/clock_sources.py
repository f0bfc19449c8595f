"""Find out whether the wall clock is confirmed, by the kernel (NTP) or by an operator.

An operator's confirmation is a file beside the audit log. It holds the difference between wall and monotonic
clock that is right. So it ends when the clock is set again, or the computer is started again.
"""

from __future__ import annotations

import ctypes
import json
import sys
from pathlib import Path
from typing import NamedTuple

from tieline_connectors.command.model.clock import CLOCK_STEP, Now

_UNSYNCHRONIZED, _NANOSECONDS, _ERROR = 0x0040, 0x2000, 5
_MAX_BYTES = 1000


class _Timex(ctypes.Structure):
    """``struct timex`` of adjtimex(2)."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        *((name, ctypes.c_long) for name in ("offset", "freq", "maxerror", "esterror")),
        ("status", ctypes.c_int),
        *((name, ctypes.c_long) for name in ("constant", "precision", "tolerance", "seconds", "fraction")),
        *((name, ctypes.c_long) for name in ("tick", "ppsfreq", "jitter")),
        ("shift", ctypes.c_int),
        *((name, ctypes.c_long) for name in ("stabil", "jitcnt", "calcnt", "errcnt", "stbcnt")),
        ("room", ctypes.c_long * 16),
    )


def synchronized_by_ntp(clocks: Now) -> bool:
    """Return whether the kernel says that its clock is synchronized, and it is the clock that was read."""
    if not sys.platform.startswith("linux"):
        return False
    timex = _Timex()
    try:
        state = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.byref(timex))
    except (OSError, AttributeError):
        return False
    if state in (-1, _ERROR) or timex.status & _UNSYNCHRONIZED or timex.maxerror > CLOCK_STEP:
        return False
    fraction = timex.fraction // 1000 if timex.status & _NANOSECONDS else timex.fraction
    return bool(abs(timex.seconds * 1_000_000 + fraction - clocks.wall) <= CLOCK_STEP)


class ClockConfirmation(NamedTuple):
    """An operator confirms: within this boot, a clock with this `Now.offset` is right."""

    boot: str
    offset: int

    @staticmethod
    def path_beside(audit_file: Path) -> Path:
        """Return the path of the confirmation of a sink with this audit log."""
        return audit_file.with_name(audit_file.name + ".clock")

    @staticmethod
    def read(path: Path) -> ClockConfirmation | None:
        """Return the last confirmation; ``None`` if the file holds none."""
        try:
            with path.open("rb") as file:
                fields = json.loads(file.read(_MAX_BYTES))
            return ClockConfirmation(str(fields["boot"]), int(fields["offset"]))
        except (OSError, ValueError, TypeError, KeyError, RecursionError):
            return None

    def write(self, path: Path) -> None:
        """Write the confirmation to its file. Raises ``OSError``."""
        new = path.with_name(path.name + ".new")
        new.write_text(json.dumps(self._asdict()) + "\n")
        new.replace(path)

    def covers(self, clocks: Now) -> bool:
        """Return whether these are the clocks that it confirms."""
        return bool(self.boot) and self.boot == clocks.boot and abs(self.offset - clocks.offset) <= CLOCK_STEP


def is_clock_confirmed(clocks: Now, confirmation_file: Path) -> bool:
    """Return whether NTP or an operator confirms what the clocks say."""
    confirmation = ClockConfirmation.read(confirmation_file)
    return (confirmation is not None and confirmation.covers(clocks)) or synchronized_by_ntp(clocks)
