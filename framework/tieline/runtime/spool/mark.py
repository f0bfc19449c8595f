"""How far a spool had come, in a small file beside it that survives a damaged write-ahead log.

After a crash SQLite reads its write-ahead log up to the first damaged page and silently ignores what follows,
although those commits were confirmed. Two numbers show the loss: up to where records were committed, and up
to where they have left the spool. Both are written in place after each commit, without an fsync. A killed
process loses neither. A power failure can lose their last seconds; then too few lost records are reported,
never too many.
"""

from __future__ import annotations

import os
import zlib
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

_SLOT = 128
_COMMITTED, _LEFT = 0, 1


class Reached(NamedTuple):
    """The next sequence number of a spool, and that of the oldest record that had not left it."""

    spool: str
    committed: int
    left: int


class SpoolMark:
    """Keeps two positions of one spool in a file. Different threads may call ``committed`` and ``left``."""

    def __init__(self, path: Path) -> None:
        """Open the file, creating it if needed. If that is impossible, nothing is remembered."""
        self.before: Reached | None = None
        """What the file held when it was opened; ``None`` if nothing valid."""
        self._spool = ""
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:
            self._file = -1
            return
        committed, left = (self._read(slot) for slot in (_COMMITTED, _LEFT))
        if committed is not None:
            spool, number = committed
            self.before = Reached(spool, number, left[1] if left is not None and left[0] == spool else 0)

    def begin(self, spool: str, committed: int, left: int) -> None:
        """Write the numbers of this spool from now on."""
        self._spool = spool
        self.left(left)
        self.committed(committed)

    def committed(self, position: int) -> None:
        """Note that all records before this position are committed."""
        self._write(_COMMITTED, position)

    def left(self, position: int) -> None:
        """Note that all records before this position were acknowledged, or dropped and counted."""
        self._write(_LEFT, position)

    def close(self) -> None:
        """Close the file. Call it once, last."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _write(self, slot: int, position: int) -> None:
        if self._file < 0:
            return
        line = f"{slot} {self._spool} {position}"
        line = f"{line} {zlib.crc32(line.encode()):08x}".ljust(_SLOT - 1) + "\n"
        with suppress(OSError):  # a full disk: the older mark stays
            os.pwrite(self._file, line.encode(), slot * _SLOT)

    def _read(self, slot: int) -> tuple[str, int] | None:
        try:
            line = os.pread(self._file, _SLOT, slot * _SLOT).decode("ascii").rstrip()
            content, _, checksum = line.rpartition(" ")
            number, spool, position = content.split(" ")
            if int(number) != slot or int(checksum, 16) != zlib.crc32(content.encode()):
                return None
            return spool, int(position)
        except (OSError, ValueError):
            return None
