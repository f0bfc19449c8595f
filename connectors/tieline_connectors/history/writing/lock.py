"""Gives a history file one owner, and private permissions."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from tieline.api import RetriableError
from tieline.api.errors import DataDirInUseError
from tieline.api.locks import lock_exclusively
from tieline.api.private_files import make_private, open_private

_FIX = "stop it first, or give this sink another file (setting file)"


class FileLock:
    """Locks ``<file>.lock`` until ``release`` or the end of the process, and creates a private file.

    The file itself is not locked: closing a second descriptor of it would end the locks that SQLite holds on
    it in this process.
    """

    def __init__(self, path: Path) -> None:
        """Raises ``RetriableError`` with the owner's process id, or if the folder cannot be written."""
        try:
            make_private(path)
            self._descriptor = open_private(path.with_name(f"{path.name}.lock"), os.O_NONBLOCK)
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
