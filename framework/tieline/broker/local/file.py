"""A log file: how it is opened, and how SQLite's errors read to the runtime.

Beside ``log.db`` stand ``log.db.lock`` (the owner's process id) and ``log.db.reserve`` (disk space kept
so that deleting still works when the disk is full).
"""

from __future__ import annotations

import os
import uuid
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import apsw

from tieline.api import FatalError, RetriableError, StartupError, TielineError
from tieline.broker.local.ownership import open_private

APPLICATION_ID = 0x7469656C  # "tiel"
SCHEMA_VERSION = 1
BUSY_TIMEOUT_MS = 10_000

# The records of a partition lie side by side: position = partition.id << 40 | offset. A partition's id is
# never used again, so that records of a deleted topic cannot show in a later one. next is stored: offsets
# grow also after everything was deleted.
SCHEMA = """
CREATE TABLE about (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE topic (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE,
    id TEXT NOT NULL,
    config TEXT NOT NULL
) STRICT;
CREATE TABLE partition (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    topic INTEGER NOT NULL REFERENCES topic ON DELETE CASCADE,
    number INTEGER NOT NULL,
    start INTEGER NOT NULL DEFAULT 0,
    next INTEGER NOT NULL DEFAULT 0,
    records INTEGER NOT NULL DEFAULT 0,
    bytes INTEGER NOT NULL DEFAULT 0,
    UNIQUE (topic, number)
) STRICT;
CREATE TABLE record (
    position INTEGER PRIMARY KEY,
    timestamp INTEGER NOT NULL,
    key BLOB,
    value BLOB,
    headers BLOB
) STRICT;
CREATE TABLE group_offset (
    name TEXT NOT NULL,
    partition INTEGER NOT NULL REFERENCES partition ON DELETE CASCADE,
    next INTEGER NOT NULL,
    PRIMARY KEY (name, partition)
) STRICT, WITHOUT ROWID;
CREATE INDEX group_offset_partition ON group_offset (partition);
CREATE TABLE source_offset (
    connector TEXT NOT NULL,
    partition TEXT NOT NULL,
    next TEXT NOT NULL,
    PRIMARY KEY (connector, partition)
) STRICT, WITHOUT ROWID;
"""


@dataclass(frozen=True)
class LogSettings:
    """What a log keeps to; a topic's own ``retention.ms``, ``retention.bytes``, ``max.message.bytes`` win.

    ``max_message_bytes``: key, value and headers of a record together. ``retention_bytes`` is for a
    partition; -1 is without a limit in both retentions. ``retention_interval`` is in seconds.
    """

    default_partitions: int = 1
    max_message_bytes: int = 16 << 20
    retention_ms: int = 7 * 24 * 3_600_000
    retention_bytes: int = -1
    retention_interval: float = 30.0
    reserve_bytes: int = 16 << 20


def connect(path: Path, *, read_only: bool = False) -> apsw.Connection:
    """A connection to a log file, which is made where there is none. Raises ``StartupError``."""
    try:
        connection = apsw.Connection(str(path))
    except apsw.Error as error:
        raise StartupError(f"the log file {path} cannot be opened: {error}") from error
    try:
        connection.set_busy_timeout(BUSY_TIMEOUT_MS)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        _ensure_schema(connection, path)
        if read_only:
            connection.execute("PRAGMA query_only = ON")
    except apsw.Error as error:
        connection.close()
        said = _damaged(path, error) or f"the log file {path} cannot be opened: {error}"
        raise StartupError(said) from error
    except StartupError:
        connection.close()
        raise
    return connection


def _ensure_schema(connection: apsw.Connection, path: Path) -> None:
    empty = connection.execute("SELECT count(*) = 0 FROM sqlite_schema").get
    if empty and connection.pragma("user_version") == 0:
        connection.execute("BEGIN IMMEDIATE")  # another process may be making it at this moment
        try:
            if connection.pragma("user_version") == 0:
                connection.execute(SCHEMA)
                connection.execute("INSERT INTO about VALUES ('cluster_id', ?)", (str(uuid.uuid4()),))
                connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            connection.execute("COMMIT")
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
    version = connection.pragma("user_version")
    if connection.pragma("application_id") != APPLICATION_ID:
        raise StartupError(f"{path} is an SQLite file of another program")
    if version > SCHEMA_VERSION:
        raise StartupError(
            f"the log file {path} has format {version}, this tieline knows up to {SCHEMA_VERSION}: "
            "start it with the tieline that wrote it, or a newer one"
        )


class Reserve:
    """Disk space put aside; given back when the disk is full, so that records can still be deleted.

    It has to hold what a checkpoint may still add to the file (the write-ahead log: about 8 MB, more only
    where one unit is larger), and the pages that deleting writes.
    """

    def __init__(self, path: Path, size: int) -> None:
        self._path = path
        self.size = size
        self.restore()

    def release(self) -> None:
        """The disk is full: make room."""
        with suppress(OSError):  # a file system that has become read-only
            self._path.unlink(missing_ok=True)

    def restore(self) -> bool:
        """Put the space aside; false if as much would not be left beside it."""
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


def to_tieline_error(error: BaseException, path: Path) -> Exception:
    """What the runtime does about an error of SQLite: wait, or stop the task."""
    if isinstance(error, TielineError):
        return error
    if isinstance(error, apsw.FullError):
        return RetriableError(
            f"the disk of {path} is full; free some space, or lower spool.max.bytes or log.retention.bytes"
        )
    if isinstance(error, (apsw.BusyError, apsw.LockedError, apsw.IOError, apsw.CantOpenError)):
        return RetriableError(f"the log file {path} cannot be used now: {error}")
    return FatalError(_damaged(path, error) or f"the log file {path}: {type(error).__name__}: {error}")


def _damaged(path: Path, error: BaseException) -> str | None:
    if not isinstance(error, (apsw.CorruptError, apsw.NotADBError)):
        return None
    return (
        f"the log file {path} is damaged ({error}): check the disk; move the file and its -wal away, and the "
        f"next start begins an empty one; SQLite's '.recover' saves what can still be read of the old one"
    )
