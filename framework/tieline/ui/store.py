"""What the pages remember in ``pages.db`` below ``data.dir``: sessions, preferences and shelved alarms."""

from __future__ import annotations

import contextlib
import os
import secrets
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import apsw

from tieline.api import StartupError

_SCHEMA = """
CREATE TABLE IF NOT EXISTS secret (id INTEGER PRIMARY KEY CHECK (id = 1), value BLOB NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS session (
    token_hash BLOB PRIMARY KEY, user TEXT NOT NULL, created REAL NOT NULL, used REAL NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS account (
    user TEXT PRIMARY KEY, password BLOB NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS preference (
    user TEXT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (user, key)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS shelved (
    alarm TEXT PRIMARY KEY, until REAL NOT NULL, reason TEXT NOT NULL, user TEXT NOT NULL, since REAL NOT NULL
) STRICT, WITHOUT ROWID;
"""
MAX_SESSIONS = 100  # of one user
MAX_PREFERENCE = 64 * 1024  # bytes


class Session(NamedTuple):
    """A signed-in user. Times are in seconds since 1970."""

    user: str
    created: float
    used: float


class Shelved(NamedTuple):
    """An alarm that a user has silenced until a time, with a reason."""

    alarm: str
    until: float
    reason: str
    user: str
    since: float


class PageStore:
    """Keeps what pages must remember in one SQLite file. Safe for many threads.

    Raises ``StartupError`` if it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600))
            self._connection = apsw.Connection(str(path))
            self._connection.set_busy_timeout(5000)
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = FULL")
            self._connection.execute(_SCHEMA)
            self._connection.execute("INSERT OR IGNORE INTO secret VALUES (1, ?)", (secrets.token_bytes(32),))
            self.secret: bytes = self._connection.execute("SELECT value FROM secret").get
            """A random key of this worker, the same after a restart."""
        except (apsw.Error, OSError) as error:
            raise StartupError(
                f"the pages' file {path} cannot be opened: {error}. If it is damaged, delete it: it holds"
                " only sessions, favourites and shelved alarms"
            ) from error

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()

    def session(self, token_hash: bytes) -> Session | None:
        """Return a session, or ``None``."""
        row = self._row("SELECT user, created, used FROM session WHERE token_hash = ?", token_hash)
        return None if row is None else Session(*row)

    def add_session(self, token_hash: bytes, session: Session, expired_before: float) -> None:
        """Store a session; delete those last used before a time, and the oldest if a user has too many."""
        with self._transaction() as connection:
            connection.execute("DELETE FROM session WHERE used < ?", (expired_before,))
            connection.execute("INSERT INTO session VALUES (?, ?, ?, ?)", (token_hash, *session))
            connection.execute(
                "DELETE FROM session WHERE token_hash IN (SELECT token_hash FROM session WHERE user = ?"
                " ORDER BY used DESC, created DESC LIMIT -1 OFFSET ?)",
                (session.user, MAX_SESSIONS),
            )

    def keep_sessions(self, accounts: Mapping[str, bytes]) -> None:
        """Keep only the sessions of these users whose passwords are those of the last call.

        ``accounts``: what changes with the password, by user.
        """
        with self._transaction() as connection:
            rows = connection.execute("SELECT user, password FROM account").fetchall()
            kept = {user for user, password in rows if accounts.get(str(user)) == password}
            for (user,) in connection.execute("SELECT DISTINCT user FROM session").fetchall():
                if user not in kept:
                    connection.execute("DELETE FROM session WHERE user = ?", (user,))
            connection.execute("DELETE FROM account")
            connection.executemany("INSERT INTO account VALUES (?, ?)", accounts.items())

    def touch_session(self, token_hash: bytes, used: float) -> None:
        """Note that a session is in use."""
        with self._transaction() as connection:
            connection.execute("UPDATE session SET used = ? WHERE token_hash = ?", (used, token_hash))

    def remove_session(self, token_hash: bytes) -> None:
        """End a session."""
        with self._transaction() as connection:
            connection.execute("DELETE FROM session WHERE token_hash = ?", (token_hash,))

    def preference(self, user: str, key: str) -> str:
        """Return a preference; empty if it is not set."""
        row = self._row("SELECT value FROM preference WHERE user = ? AND key = ?", user, key)
        return "" if row is None else row[0]

    def set_preference(self, user: str, key: str, value: str) -> None:
        """Store a preference. Raises ``ValueError`` if it is larger than 64 kB."""
        if len(value.encode()) > MAX_PREFERENCE:
            raise ValueError(f"a preference has at most {MAX_PREFERENCE} bytes")
        with self._transaction() as connection:
            connection.execute("INSERT OR REPLACE INTO preference VALUES (?, ?, ?)", (user, key, value))

    def shelved(self, now: float) -> dict[str, Shelved]:
        """Return the alarms that are shelved now, by their key."""
        with self._lock:
            rows = self._connection.execute("SELECT * FROM shelved WHERE until > ?", (now,)).fetchall()
        return {str(row[0]): Shelved(*row) for row in rows}  # type: ignore[arg-type]

    def shelve(self, shelved: Shelved) -> None:
        """Shelve an alarm, or change how long."""
        with self._transaction() as connection:
            connection.execute("DELETE FROM shelved WHERE until <= ?", (shelved.since,))
            connection.execute("INSERT OR REPLACE INTO shelved VALUES (?, ?, ?, ?, ?)", shelved)

    def unshelve(self, alarm: str) -> None:
        """Return an alarm to the list."""
        with self._transaction() as connection:
            connection.execute("DELETE FROM shelved WHERE alarm = ?", (alarm,))

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[apsw.Connection]:
        with self._lock, self._connection:
            yield self._connection

    def _row(self, query: str, *values: apsw.SQLiteValue) -> tuple | None:  # type: ignore[type-arg]
        with self._lock:
            row = self._connection.execute(query, values).fetchone()
        return None if row is None else tuple(row)
