"""Writes records into a file of readings: rows, rollups and identities in one transaction."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import apsw

from tieline.api import RetriableError
from tieline_connectors.history.database import floors, open_to_write, to_tieline_error
from tieline_connectors.history.model.candidates import Candidate, PointTime
from tieline_connectors.history.model.identity import RecordIdentity
from tieline_connectors.history.model.intervals import HOUR, MAX_TIME, split
from tieline_connectors.history.writing.names import Names
from tieline_connectors.history.writing.rollups import recompute

T = TypeVar("T")

_INSERT = (
    "INSERT INTO reading (hour, series, at, value, delay, publication) VALUES (?, ?, ?, ?, ?, ?)"
    " ON CONFLICT DO NOTHING RETURNING hour, series, at"
)
_SELECT = "SELECT value, delay, publication FROM reading WHERE hour = ? AND series = ? AND at = ?"
_UPDATE = "UPDATE reading SET value = ?, delay = ?, publication = ? WHERE hour = ? AND series = ? AND at = ?"

RowKey = tuple[int, int, int]
"""``hour``, ``series`` and ``at`` of a row."""


class IdentifiedRecord(NamedTuple):
    """A record to write: its identity and its values."""

    identity: RecordIdentity
    candidates: Mapping[PointTime, Candidate]


class WriteResult(NamedTuple):
    """Counters, and by index why a record was not written."""

    counts: Counter[str]
    failures: dict[int, Exception]


class _Merged(NamedTuple):
    """The candidate of a batch for one row, and whether only records that are already stored have it."""

    candidate: Candidate
    known: bool


class HistoryWriter:
    """Writes one file, from one thread. Each method may raise ``RetriableError`` or ``FatalError``."""

    def __init__(self, path: Path) -> None:
        """Open the file, or create it."""
        self.path = path
        self.connection = open_to_write(path)
        self._file = path.stat()
        self._names = Names(self.connection)

    def write(self, records: Sequence[IdentifiedRecord]) -> WriteResult:
        """Write all records but those whose identity another record has, and return when they are safe."""
        return self.transact(lambda: self._write(records))

    def transact(self, change: Callable[[], T]) -> T:
        """Make a change in a transaction of its own, and return when it is safe."""
        self._check_file()
        try:
            self.connection.execute("BEGIN IMMEDIATE")
            try:
                result = change()
                self.connection.execute("COMMIT")
            except BaseException:
                self._names.forget()
                if self.connection.in_transaction:
                    self.connection.execute("ROLLBACK")
                raise
        except apsw.Error as error:
            raise to_tieline_error(error, self.path) from error
        return result

    def read(self, query: str) -> Any:
        """Return the value that a query returns."""
        try:
            return self.connection.execute(query).get
        except apsw.Error as error:
            raise to_tieline_error(error, self.path) from error

    @property
    def free_bytes(self) -> int:
        """The size of the pages in the file that deleted rows have left."""
        return int(self.read("PRAGMA freelist_count") * self.read("PRAGMA page_size"))

    def close(self) -> None:
        """Close the file."""
        self.connection.close()

    def _check_file(self) -> None:
        """SQLite would continue to write a file that was deleted, and all of that would be lost."""
        try:
            same = os.path.samestat(self.path.stat(), self._file)
        except OSError:
            same = False
        if not same:
            raise RetriableError(
                f"the history file {self.path} was deleted, moved or replaced while this sink was writing"
                " it; it is opened again"
            )

    def _write(self, records: Sequence[IdentifiedRecord]) -> WriteResult:
        self._names.begin()
        result = WriteResult(Counter(), {})
        floor = floors(self.connection).get("reading")
        oldest = -MAX_TIME if floor is None else floor * HOUR
        merged: dict[PointTime, _Merged] = {}
        for index, (identity, candidates) in enumerate(records):
            try:
                known = identity.day >= oldest // HOUR // 24 and self._is_known(identity)
            except ValueError as error:
                result.failures[index] = error
            else:
                _merge(merged, candidates, known, oldest, result.counts)
        recompute(self.connection, self._write_rows(merged, result.counts))
        self._names.finish()
        return result

    def _is_known(self, identity: RecordIdentity) -> bool:
        """Store an identity, and return whether it is already stored.

        Raises ``ValueError`` if it is stored with another digest.
        """
        day, record_id, digest = identity
        self.connection.execute(
            "INSERT INTO record VALUES (?, ?, ?) ON CONFLICT DO NOTHING", (day, record_id, digest)
        )
        if self.connection.changes():
            return False
        stored = self.connection.execute(
            "SELECT digest FROM record WHERE day = ? AND id = ?", (day, record_id)
        ).get
        if stored != digest:
            raise ValueError(
                f"{self.path} contains another record with the id {record_id.hex()} (digest {stored.hex()}…,"
                f" not {digest.hex()}…): two records have one identity"
            )
        return True

    def _write_rows(self, merged: Mapping[PointTime, _Merged], counts: Counter[str]) -> Iterable[RowKey]:
        """Write the rows of a batch; return those of which the value is new."""
        rows = {}
        for (name, time), item in merged.items():
            series = self._names.series(name)
            if series is None:
                series = self._names.add_series(name, time)
            number = self._names.publication(series, item.candidate.publication)
            hour, at = split(time)
            rows[hour, series, at] = (item, time, number)
        inserted = set(
            self.connection.executemany(
                _INSERT,
                [
                    (*key, item.candidate.value, item.candidate.delay, number)
                    for key, (item, _, number) in rows.items()
                ],
            )
        )
        changed = []
        for key, (item, time, number) in rows.items():
            if key in inserted:
                changed.append(key)
            elif not self._replace(key, item, number, counts, changed):
                continue
            self._names.stored(key[1], time, number)
        return changed

    def _replace(
        self, key: RowKey, item: _Merged, number: int, counts: Counter[str], changed: list[RowKey]
    ) -> bool:
        """Let the candidate replace an existing row if it was received later. Return whether it does."""
        stored_value, delay, publication = next(self.connection.execute(_SELECT, key))
        stored = Candidate(delay, stored_value, self._names.publication_of(key[1], publication))
        candidate = item.candidate
        replaces = stored.precedes(candidate)
        if not item.known:
            counts[_outcome(stored, candidate, replaces)] += 1
        if replaces:
            self.connection.execute(_UPDATE, (candidate.value, candidate.delay, number, *key))
            if not stored.has_value_of(candidate):
                changed.append(key)
        return replaces


def _merge(
    merged: dict[PointTime, _Merged],
    candidates: Mapping[PointTime, Candidate],
    known: bool,
    oldest: int,
    counts: Counter[str],
) -> None:
    """Add the candidates of a record to those of its batch."""
    for key, candidate in candidates.items():
        if key[1] < oldest:
            counts["expired"] += 1
            continue
        if known:
            counts["duplicates"] += 1
        other = merged.get(key)
        if other is None:
            merged[key] = _Merged(candidate, known)
            continue
        replaces = other.candidate.precedes(candidate)
        if not known and not other.known:
            counts[_outcome(other.candidate, candidate, replaces)] += 1
        # One of the two is still to be counted if either is new: when the row is written.
        merged[key] = _Merged(candidate if replaces else other.candidate, known and other.known)


def _outcome(stored: Candidate, candidate: Candidate, replaces: bool) -> str:
    """Return the counter for a second value of a point and time."""
    if stored.has_value_of(candidate):
        return "repeated"
    return "replaced" if replaces else "outdated"
