"""A bounded file with the newest lines of a worker's log, for a support bundle.

Standard error may be a terminal or a pipe whose lines are lost. Lines of progress are left out: the status
file has the last one. What is left is rare. It is not synchronized to the disk, so the kernel writes it at
most every half a minute: this does not wear out a memory card.
"""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from pathlib import Path

from tieline.api.private_files import make_private, open_private

MAX_BYTES = 1 << 20
"""Of the file; as much again is in the one before it."""
FILE = Path("workers", "recent.log")
"""Its path below ``data.dir``."""


def previous(path: Path) -> Path:
    """Return the path of the file that a full one becomes."""
    return path.with_name(f"{path.name}.1")


class BoundedFile:
    """An append-only text stream of at most ``max_bytes``; then it starts over, and the former is kept.

    ``QueuedHandler`` writes to ``fileno()`` on one thread. Without a disk there is no file, and no error.
    """

    encoding = "utf-8"
    errors = "backslashreplace"

    def __init__(self, path: Path, max_bytes: int = MAX_BYTES) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._file = -1

    def fileno(self) -> int:
        """Return the descriptor to append to. Raises ``ValueError`` if the file cannot be opened."""
        try:
            if self._file >= 0 and os.fstat(self._file).st_size >= self._max_bytes:
                self.close()
                self._path.replace(previous(self._path))
            if self._file < 0:
                make_private(self._path)
                self._file = open_private(self._path, os.O_APPEND)
        except OSError as error:
            raise ValueError(str(error)) from error
        return self._file

    def close(self) -> None:
        """Close the file; the next line opens it again."""
        if self._file >= 0:
            with suppress(OSError):
                os.close(self._file)
            self._file = -1


def is_kept(record: logging.LogRecord) -> bool:
    """Return whether a line belongs in the file."""
    return record.msg != "progress"
