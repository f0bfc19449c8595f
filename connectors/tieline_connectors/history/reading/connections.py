"""Connections to a history file for many threads, with a time limit for each call."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import apsw

from tieline_connectors.history.database import UnusableFileError, describe_error, open_to_read
from tieline_connectors.points.questions import StoreUnavailableError

_STEPS = 20_000
"""Instructions of SQLite between two looks at the clock: about a millisecond."""


class TooSlowError(StoreUnavailableError):
    """A question took longer than its time limit."""


class Connections:
    """Lends connections. No transaction stays open between two calls, so that the sink can checkpoint."""

    def __init__(self, path: Path, seconds: float) -> None:
        self.path = path
        self._seconds = seconds
        self._lock = threading.Lock()
        self._idle: list[tuple[apsw.Connection, tuple[int, int]]] = []
        self._closed = False

    @contextmanager
    def borrow(self, limited: bool = True) -> Iterator[Connection]:
        """Lend a connection. Raises ``StoreUnavailableError``, also after the time limit."""
        try:
            connection, file = self._take()
        except (apsw.Error, UnusableFileError, OSError) as error:
            raise StoreUnavailableError(self._describe(error)) from error
        deadline = time.monotonic() + self._seconds if limited else float("inf")
        connection.set_progress_handler(lambda: time.monotonic() > deadline, _STEPS)
        try:
            connection.execute("BEGIN")  # one state of the file for all statements of the call
            yield Connection(connection, deadline)
        except (TimeoutError, apsw.InterruptError) as error:
            raise TooSlowError(
                f"the history file {self.path} did not answer within {self._seconds:g} s;"
                " ask for a shorter time or fewer points"
            ) from error
        except apsw.Error as error:
            raise StoreUnavailableError(self._describe(error)) from error
        finally:
            connection.set_progress_handler(None)
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            self._give_back(connection, file)

    def close(self) -> None:
        """Close all connections that are not lent; the others are closed when they come back."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for connection, _ in idle:
            connection.close()

    def _take(self) -> tuple[apsw.Connection, tuple[int, int]]:
        status = self.path.stat()
        file = (status.st_dev, status.st_ino)
        with self._lock:
            if self._closed:
                raise UnusableFileError(f"the history file {self.path} was closed")
            stale = [connection for connection, of in self._idle if of != file]
            self._idle = [(connection, of) for connection, of in self._idle if of == file]
            lent = self._idle.pop() if self._idle else None
        for connection in stale:
            connection.close()
        return lent or (open_to_read(self.path), file)

    def _give_back(self, connection: apsw.Connection, file: tuple[int, int]) -> None:
        with self._lock:
            if not self._closed:
                self._idle.append((connection, file))
                return
        connection.close()

    def _describe(self, error: BaseException) -> str:
        if isinstance(error, FileNotFoundError):
            return f"there is no history file {self.path}; the sink history creates it when it starts"
        if isinstance(error, OSError):
            return f"the history file {self.path} cannot be read: {error.strerror}"
        return describe_error(error, self.path)


class Connection:
    """A connection that is lent for one call."""

    def __init__(self, connection: apsw.Connection, deadline: float) -> None:
        self._connection = connection
        self.deadline = deadline

    def rows(self, query: str, values: tuple[object, ...] = ()) -> list[tuple[apsw.SQLiteValue, ...]]:
        """Return all rows of a query. Raises ``TimeoutError`` and apsw's errors."""
        if time.monotonic() > self.deadline:
            raise TimeoutError
        return self._connection.execute(query, values).fetchall()

    def value(self, query: str, values: tuple[object, ...] = ()) -> int | None:
        """Return the number that a query returns, or ``None``."""
        rows = self.rows(query, values)
        return rows[0][0] if rows else None  # type: ignore[return-value]

    @property
    def seconds_left(self) -> float:
        """The rest of the time limit."""
        return self.deadline - time.monotonic()
