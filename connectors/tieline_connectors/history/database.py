"""The file of readings: its tables, how it is opened, and what SQLite's errors mean."""

from __future__ import annotations

from pathlib import Path

import apsw

from tieline.api import FatalError, RetriableError
from tieline_connectors.history.model.stored_values import number_in

FILE_NAME = "history.db"
"""The file in ``data.dir`` if the settings name no other."""

APPLICATION_ID = 0x74696568  # "tieh"
FORMAT = 1
BUSY_TIMEOUT_MS = 2_000

# reading.at: microseconds from the middle of the hour. delay: from the time to the reception.
# A rollup has one row for each interval with a row in reading. Of its numbers, maximum is NULL if it equals
# minimum, first if it equals minimum, last if it equals maximum; minimum is NULL if there is no number.
# record: the identity of each record, by the day of its time.
SCHEMA = """
CREATE TABLE floor (
    name TEXT PRIMARY KEY,
    hour INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE series (
    id INTEGER PRIMARY KEY,
    platform TEXT NOT NULL,
    device TEXT NOT NULL,
    point TEXT NOT NULL,
    last_time INTEGER NOT NULL,
    last_publication INTEGER NOT NULL,
    UNIQUE (platform, device, point)
) STRICT;
CREATE TABLE publication (
    series INTEGER NOT NULL REFERENCES series,
    number INTEGER NOT NULL,
    topic TEXT NOT NULL,
    units TEXT,
    time_source TEXT NOT NULL,
    sender TEXT NOT NULL,
    PRIMARY KEY (series, number)
) STRICT, WITHOUT ROWID;
CREATE TABLE reading (
    hour INTEGER NOT NULL,
    series INTEGER NOT NULL,
    at INTEGER NOT NULL,
    value ANY,
    delay INTEGER NOT NULL,
    publication INTEGER NOT NULL,
    PRIMARY KEY (hour, series, at)
) STRICT, WITHOUT ROWID;
CREATE TABLE five_minutes (
    hour INTEGER NOT NULL,
    series INTEGER NOT NULL,
    slot INTEGER NOT NULL,
    minimum REAL,
    maximum REAL,
    first REAL,
    last REAL,
    skipped INTEGER NOT NULL,
    PRIMARY KEY (hour, series, slot)
) STRICT, WITHOUT ROWID;
CREATE TABLE one_hour (
    day INTEGER NOT NULL,
    series INTEGER NOT NULL,
    hour_of_day INTEGER NOT NULL,
    minimum REAL,
    maximum REAL,
    first REAL,
    last REAL,
    skipped INTEGER NOT NULL,
    PRIMARY KEY (day, series, hour_of_day)
) STRICT, WITHOUT ROWID;
CREATE TABLE record (
    day INTEGER NOT NULL,
    id BLOB NOT NULL,
    digest BLOB NOT NULL,
    PRIMARY KEY (day, id)
) STRICT, WITHOUT ROWID;
"""

NUMBER = (
    "CASE typeof(value) WHEN 'integer' THEN value"
    " WHEN 'real' THEN CASE WHEN abs(value) <= 1.7976931348623157e308 THEN value END"
    " WHEN 'blob' THEN number_in(value) END"
)
"""The number that a chart shows of ``reading.value``."""


class UnusableFileError(Exception):
    """The file is damaged, or not a file of readings; the message says what to do."""


class DiskFullError(RetriableError):
    """The disk is full: the batch waits until there is room."""


def open_to_write(path: Path) -> apsw.Connection:
    """Open a file of readings, or create it. Raises ``RetriableError``, ``FatalError``."""
    try:
        connection = apsw.Connection(str(path))
        try:
            connection.set_busy_timeout(BUSY_TIMEOUT_MS)
            if _is_new(connection):
                connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA journal_size_limit = 16777216")
            connection.execute("PRAGMA cache_size = -16384")
            if _is_new(connection):
                _create(connection)
            _check_format(connection, path)
            _add_functions(connection)
        except BaseException:
            connection.close()
            raise
    except (apsw.Error, UnusableFileError) as error:
        raise to_tieline_error(error, path) from error
    return connection


def open_to_read(path: Path) -> apsw.Connection:
    """Open an existing file of readings, also beside its sink.

    Raises apsw's errors and ``UnusableFileError``.
    """
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
    try:
        connection.set_busy_timeout(BUSY_TIMEOUT_MS)
        connection.execute("PRAGMA query_only = ON")
        if _is_new(connection):
            raise UnusableFileError(f"the history file {path} is empty: the sink is just creating it")
        _check_format(connection, path)
        _add_functions(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def floors(connection: apsw.Connection) -> dict[str, int]:
    """Return the first hour of which each table keeps all rows; a table from which nothing expired: none."""
    return dict(connection.execute("SELECT name, hour FROM floor"))


def describe_error(error: BaseException, path: Path) -> str:
    """Return what an error of SQLite means, with the fix."""
    if isinstance(error, (apsw.CorruptError, apsw.NotADBError)):
        return (
            f"the history file {path} is damaged ({error}): check the disk. If you move the file and its"
            " -wal elsewhere, the sink creates an empty one; SQLite's '.recover' saves what is still readable"
        )
    if isinstance(error, UnusableFileError):
        return str(error)
    return f"the history file {path} cannot be used at present: {error}"


def disk_full_error(path: Path) -> DiskFullError:
    """Return the error of a full disk, with the fix."""
    return DiskFullError(
        f"the disk of {path} is full; free some space, or lower retention.bytes or retention.ms"
    )


def to_tieline_error(error: BaseException, path: Path) -> RetriableError | FatalError:
    """Return the runtime's error for an error of SQLite."""
    if isinstance(error, (RetriableError, FatalError)):
        return error
    if isinstance(error, apsw.FullError):
        return disk_full_error(path)
    message = describe_error(error, path)
    retriable = (apsw.BusyError, apsw.LockedError, apsw.IOError, apsw.CantOpenError)
    return RetriableError(message) if isinstance(error, retriable) else FatalError(message)


def _is_new(connection: apsw.Connection) -> bool:
    return bool(connection.execute("SELECT count(*) = 0 FROM sqlite_schema").get)


def _create(connection: apsw.Connection) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        connection.execute(SCHEMA)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {FORMAT}")
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def _check_format(connection: apsw.Connection, path: Path) -> None:
    if connection.pragma("application_id") != APPLICATION_ID:
        raise UnusableFileError(f"{path} is not a history file: it belongs to another program. Name another")
    version = connection.pragma("user_version")
    if version > FORMAT:
        raise UnusableFileError(
            f"the history file {path} has format {version}, this tieline knows up to {FORMAT}: "
            "use the version of tieline that wrote it, or a newer one"
        )


def _add_functions(connection: apsw.Connection) -> None:
    connection.create_scalar_function("number_in", _number_in, 1, deterministic=True)


def _number_in(*arguments: apsw.SQLiteValue) -> apsw.SQLiteValue:
    (blob,) = arguments
    return number_in(blob) if isinstance(blob, bytes) else None
