"""Files that only this user may read, and disk space in reserve, for connectors and logs that keep data."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

PRIVATE_FILE = 0o600
PRIVATE_FOLDER = 0o700


def make_private(path: Path) -> None:
    """Create a missing file and its folders, accessible to this user alone for any umask."""
    missing = [folder for folder in (path.parent, *path.parent.parents) if not folder.exists()]
    for folder in reversed(missing):
        with suppress(FileExistsError):  # another process creates it now
            folder.mkdir(PRIVATE_FOLDER)
            folder.chmod(PRIVATE_FOLDER)
    with suppress(FileExistsError):  # not opened if it exists: closing it would end the locks of SQLite
        os.close(open_private(path, os.O_EXCL))


def open_private(path: Path, flags: int = 0) -> int:
    """Open a file to read and write, or create it, accessible to this user alone."""
    file = os.open(path, os.O_RDWR | os.O_CREAT | flags, PRIVATE_FILE)
    with suppress(OSError):  # it is another user's, and this one may write it
        os.fchmod(file, PRIVATE_FILE)
    return file


def sync_folder(folder: Path) -> None:
    """Return when the names in a folder are on the disk. Raises ``OSError``."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class DiskReserve:
    """Reserved disk space, which is released when the disk is full, so that records can still be deleted.

    It must hold what a checkpoint may add to the file (the write-ahead log: about 8 MB, or more if one unit
    is larger), and the pages that a deletion writes.
    """

    def __init__(self, path: Path, size: int) -> None:
        self._path = path
        self.size = size
        self.restore()

    def release(self) -> None:
        """Release the space, because the disk is full."""
        with suppress(OSError):  # a file system that has become read-only
            self._path.unlink(missing_ok=True)

    def restore(self) -> bool:
        """Reserve the space. Return ``False`` if less than as much again would be left."""
        try:
            disk = os.statvfs(self._path.parent)
            if not self._path.exists() and disk.f_bavail * disk.f_frsize < 2 * self.size:
                return False
            file = open_private(self._path)
            try:
                os.posix_fallocate(file, 0, self.size)
            finally:
                os.close(file)
        except OSError:
            self.release()
            return False
        return True
