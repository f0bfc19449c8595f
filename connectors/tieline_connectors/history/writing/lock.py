"""Gives a history file one owner, and private permissions."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from tieline.api import RetriableError
from tieline.api.errors import DataDirInUseError
from tieline.api.locks import lock_exclusively

_FIX = "stop it first, or give this sink another file (setting file)"


class FileLock:
    """Locks ``<file>.lock`` until ``release`` or the end of the process, and creates a private file.

    The file itself is not locked: closing a second descriptor of it would end the locks that SQLite holds on
    it in this process.
    """

    def __init__(self, path: Path) -> None:
        """Raises ``RetriableError`` with the owner's process id, or if the folder cannot be written."""
        try:
            _make_private(path)
            self._descriptor = _open_private(path.with_name(f"{path.name}.lock"))
        except OSError as error:
            raise RetriableError(
                f"the history file {path} cannot be written: {error.strerror}; check its folder"
            ) from error
        try:
            lock_exclusively(self._descriptor, f"the history file {path}", _FIX)
        except DataDirInUseError as error:
            os.close(self._descriptor)
            raise RetriableError(str(error)) from None
        except OSError as error:
            os.close(self._descriptor)
            raise RetriableError(f"the history file {path} cannot be locked: {error.strerror}") from error
        with suppress(OSError):  # a full disk; the name is for operators alone
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Let another task own the file."""
        os.close(self._descriptor)


def _make_private(path: Path) -> None:
    """Create a missing file and its folders, accessible to this user alone for any umask."""
    missing = [folder for folder in (path.parent, *path.parent.parents) if not folder.exists()]
    for folder in reversed(missing):
        with suppress(FileExistsError):  # another task creates it now
            folder.mkdir(0o700)
            folder.chmod(0o700)
    with suppress(FileExistsError):  # an existing file is not opened: see FileLock
        os.close(_open_private(path, os.O_EXCL))


def _open_private(path: Path, flags: int = 0) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC | flags, 0o600)
