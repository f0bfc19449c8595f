"""Opening a log file, and translating SQLite's errors.

Beside ``log.db`` are ``log.db.lock``, with the owner's process id, and ``log.db.reserve``, disk space that is
kept so that records can still be deleted when the disk is full.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from pathlib import Path

import apsw

from tieline.api import FatalError, RetriableError, StartupError, TielineError

APPLICATION_ID = 0x7469656C  # "tiel"
SCHEMA_VERSION = 1
BUSY_TIMEOUT_MS = 10_000

# A table of its own, so that a file of an older version gets it with its first commit, and that version can
# still use the file. A note belongs to one offset: if an older version moves the offset, the note is ignored.
OFFSET_NOTES = """
CREATE TABLE IF NOT EXISTS offset_note (
    name TEXT NOT NULL,
    partition INTEGER NOT NULL REFERENCES partition ON DELETE CASCADE,
    next INTEGER NOT NULL,
    note TEXT NOT NULL,
    PRIMARY KEY (name, partition)
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS offset_note_partition ON offset_note (partition);
"""

# The notes of source offsets, for the same reasons in a table of their own.
SOURCE_NOTES = """
CREATE TABLE IF NOT EXISTS source_note (
    connector TEXT NOT NULL,
    partition TEXT NOT NULL,
    next TEXT NOT NULL,
    note TEXT NOT NULL,
    PRIMARY KEY (connector, partition)
) STRICT, WITHOUT ROWID;
"""

# The records of a partition are adjacent: position = partition.id << 40 | offset. The id of a partition is
# never reused, so that records of a deleted topic cannot appear in a later one. next is stored, so that
# offsets continue after all records were deleted.
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
    """The settings of a log. A topic's ``retention.ms``, ``retention.bytes``, ``max.message.bytes`` come
    first.

    ``max_message_bytes`` counts key, value and headers of a record. ``retention_bytes`` is per partition. For
    both retentions -1 means no limit. ``retention_interval`` is in seconds.
    """

    default_partitions: int = 1
    max_message_bytes: int = 16 << 20
    retention_ms: int = 7 * 24 * 3_600_000
    retention_bytes: int = -1
    retention_interval: float = 30.0
    reserve_bytes: int = 16 << 20


def connect(path: Path, *, read_only: bool = False) -> apsw.Connection:
    """Open a log file, or create it. Raises ``StartupError``."""
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
        message = _describe_damage(path, error) or f"the log file {path} cannot be opened: {error}"
        raise StartupError(message) from error
    except StartupError:
        connection.close()
        raise
    return connection


def _ensure_schema(connection: apsw.Connection, path: Path) -> None:
    empty = connection.execute("SELECT count(*) = 0 FROM sqlite_schema").get
    if empty and connection.pragma("user_version") == 0:
        connection.execute("BEGIN IMMEDIATE")  # another process may be creating it now
        try:
            if connection.pragma("user_version") == 0:
                connection.execute(SCHEMA + OFFSET_NOTES + SOURCE_NOTES)
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
            "use the version of tieline that wrote it, or a newer one"
        )


def to_tieline_error(error: BaseException, path: Path) -> Exception:
    """Return the error of the broker interface for an error of SQLite."""
    if isinstance(error, TielineError):
        return error
    if isinstance(error, apsw.FullError):
        return RetriableError(
            f"the disk of {path} is full; free some space, or lower spool.max.bytes or log.retention.bytes"
        )
    if isinstance(error, (apsw.BusyError, apsw.LockedError, apsw.IOError, apsw.CantOpenError)):
        return RetriableError(f"the log file {path} cannot be used at present: {error}")
    return FatalError(
        _describe_damage(path, error) or f"the log file {path}: {type(error).__name__}: {error}"
    )


def _describe_damage(path: Path, error: BaseException) -> str | None:
    if not isinstance(error, (apsw.CorruptError, apsw.NotADBError)):
        return None
    return (
        f"the log file {path} is damaged ({error}): check the disk. If you move the file and its -wal "
        f"elsewhere, the next start creates an empty one; SQLite's '.recover' saves what is still readable"
    )
