"""What knows, beside the clock itself, whether it is right: the kernel that NTP keeps, and an operator.

An operator's word is a file beside the audit log: that a wall clock which is so far ahead of the monotonic
one is right. So it means nothing after the clock was set again, or the computer was started again.
"""

from __future__ import annotations

import ctypes
import json
import sys
from pathlib import Path
from typing import NamedTuple

from tieline_connectors.command.model.clock import CLOCK_STEP, Now

_UNSYNCHRONIZED, _NANOSECONDS, _ERROR = 0x0040, 0x2000, 5
_MOST = 1000


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


def kept_by_ntp(shown: Now) -> bool:
    """Whether the kernel says that its clock is synchronized, and it is the clock that was read."""
    if not sys.platform.startswith("linux"):
        return False
    found = _Timex()
    try:
        state = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.byref(found))
    except (OSError, AttributeError):
        return False
    if state in (-1, _ERROR) or found.status & _UNSYNCHRONIZED or found.maxerror > CLOCK_STEP:
        return False
    fraction = found.fraction // 1000 if found.status & _NANOSECONDS else found.fraction
    return bool(abs(found.seconds * 1_000_000 + fraction - shown.wall) <= CLOCK_STEP)


class Word(NamedTuple):
    """An operator's: within this start of the computer, a clock with this `Now.offset` is right."""

    boot: str
    offset: int

    @staticmethod
    def beside(audit_file: Path) -> Path:
        """The file of it."""
        return audit_file.with_name(audit_file.name + ".clock")

    @staticmethod
    def read(path: Path) -> Word | None:
        """The word that was given last, or none. Whatever else the file holds is none."""
        try:
            with path.open("rb") as file:
                found = json.loads(file.read(_MOST))
            return Word(str(found["boot"]), int(found["offset"]))
        except (OSError, ValueError, TypeError, KeyError, RecursionError):
            return None

    def write(self, path: Path) -> None:
        """Give it. Raises ``OSError``."""
        new = path.with_name(path.name + ".new")
        new.write_text(json.dumps(self._asdict()) + "\n")
        new.replace(path)

    def vouches(self, shown: Now) -> bool:
        """Whether this is the clock that it speaks of."""
        return bool(self.boot) and self.boot == shown.boot and abs(self.offset - shown.offset) <= CLOCK_STEP


def vouched(shown: Now, word: Path) -> bool:
    """Whether NTP or an operator says that what the clocks show is right."""
    said = Word.read(word)
    return (said is not None and said.vouches(shown)) or kept_by_ntp(shown)
