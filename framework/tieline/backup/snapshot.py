"""A consistent copy of one SQLite file, while other processes write to it."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import apsw
from typing_extensions import Self

from tieline.api import FatalError
from tieline.api.private_files import open_private

_BUSY_TIMEOUT_MS = 10_000
_STEP_BYTES = 256 << 10
_MAX_PROBLEM = 500


class Snapshot:
    """The content of a SQLite file at the moment when this is created. Used by one thread.

    A transaction that only reads keeps the content. Writers of the file are not blocked, but their
    write-ahead log grows until ``close``: ``pinned_bytes``.
    """

    def __init__(self, path: Path) -> None:
        """Raises ``FatalError`` if the file cannot be read."""
        self.path = path
        try:
            self._connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
        except apsw.Error as error:
            raise _error(path, error) from error
        try:
            # The last connection that closes would otherwise write the log into the file.
            self._connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
            self._connection.set_busy_timeout(_BUSY_TIMEOUT_MS)
            self._page_size = int(self._connection.pragma("page_size"))
            self._connection.execute("BEGIN")
            self._connection.execute("SELECT count(*) FROM sqlite_schema").fetchall()  # from here on
            self.size = self._page_size * int(self._connection.pragma("page_count"))
        except apsw.Error as error:
            self._connection.close()
            raise _error(path, error) from error
        self._wal_at_start = self._wal_size()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def pinned_bytes(self) -> int:
        """By how much the write-ahead log has grown since the snapshot."""
        return max(0, self._wal_size() - self._wal_at_start)

    def copy_to(self, target: Path, copied: Callable[[int], None]) -> None:
        """Write the content to a new, private file, and return when it is on the disk.

        ``copied`` is called with the bytes of each step. Raises ``FatalError`` and ``OSError``.
        """
        os.close(open_private(target, os.O_EXCL))
        try:
            destination = apsw.Connection(str(target))
            try:
                destination.execute("PRAGMA synchronous = OFF")
                pages = max(1, _STEP_BYTES // self._page_size)
                with destination.backup("main", self._connection, "main") as backup:
                    while not backup.done:
                        before = backup.remaining
                        backup.step(pages)
                        done = before - backup.remaining if before else pages
                        copied(max(0, done) * self._page_size)
            finally:
                destination.close()
        except apsw.Error as error:
            raise _error(self.path, error) from error
        file = os.open(target, os.O_RDONLY)
        try:
            os.fsync(file)
        finally:
            os.close(file)

    def close(self) -> None:
        """Release the content; may be called again."""
        with suppress(apsw.Error):
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
        self._connection.close()

    def _wal_size(self) -> int:
        try:
            return os.stat(f"{self.path}-wal").st_size
        except OSError:
            return 0


def find_damage(path: Path) -> str:
    """Return what SQLite's integrity check finds in a copy that no process uses; empty if nothing."""
    name = path.absolute().as_uri() + "?immutable=1"
    try:
        connection = apsw.Connection(name, flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI)
        try:
            found = [str(row[0]) for row in connection.execute("PRAGMA integrity_check(5)").fetchall()]
        finally:
            connection.close()
    except apsw.Error as error:
        return str(error)[:_MAX_PROBLEM]
    return "" if found == ["ok"] else "; ".join(found)[:_MAX_PROBLEM]


def _error(path: Path, error: apsw.Error) -> FatalError:
    if isinstance(error, apsw.FullError):
        return FatalError(f"the disk of the backup is full while {path.name} is copied; free some space")
    return FatalError(
        f"{path} cannot be copied: {error}; check its permissions and its disk, and run "
        "this as the worker's user"
    )
