"""Disk space that is kept, so that expired readings can still be deleted when the disk is full."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

_BYTES = 8 * 1024 * 1024


class Reserve:
    """The file ``<file>.reserve``: a deletion needs room in the write-ahead log, too."""

    size = _BYTES

    def __init__(self, path: Path) -> None:
        self._path = path.with_name(f"{path.name}.reserve")
        self.restore()

    def release(self) -> None:
        """Release the space, because the disk is full."""
        with suppress(OSError):  # a file system that has become read-only
            self._path.unlink(missing_ok=True)

    def restore(self) -> bool:
        """Reserve the space. Return whether it is reserved: the disk must have as much again."""
        if self._path.exists():
            return True
        try:
            disk = os.statvfs(self._path.parent)
            if disk.f_bavail * disk.f_frsize < 2 * self.size:
                return False
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(descriptor, 0, self.size)
            finally:
                os.close(descriptor)
        except OSError:
            self.release()
            return False
        return True
