"""Deletes expired readings and rollups in small steps, between two batches."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import NamedTuple

from tieline_connectors.history.database import floors
from tieline_connectors.history.model.intervals import HOUR
from tieline_connectors.history.writing.writer import HistoryWriter

log = logging.getLogger(__name__)

_STEP = 2_000
"""Rows per transaction."""
_VACUUM_PAGES = 256
_SLACK = 16
"""A file shrinks only if it is larger than its limit by one part in so many."""
_FACTOR = 10
"""By size, rollups are deleted before readings if they reach so many times further back."""
_MILLISECONDS_PER_HOUR = HOUR // 1000


class RetentionLimits(NamedTuple):
    """Ages in milliseconds and the size of the file in bytes; -1 means no limit."""

    readings_ms: int
    rollups_ms: int
    file_bytes: int


class _Table(NamedTuple):
    """A table from which the oldest rows are deleted, and how many hours its first column counts."""

    name: str
    key: str
    unit: str
    hours: int


_READINGS = _Table("reading", "hour, series, at", "hour", 1)
_FIVE_MINUTES = _Table("five_minutes", "hour, series, slot", "hour", 1)
_ONE_HOUR = _Table("one_hour", "day, series, hour_of_day", "day", 24)
_RECORDS = _Table("record", "day, id", "day", 24)


class Retention:
    """Keeps one file within its limits.

    The first hour that a table keeps is stored before its rows are deleted: the writer rejects older
    readings, so that no late reading changes a rollup of which the other rows are gone.
    """

    def __init__(
        self, writer: HistoryWriter, limits: RetentionLimits, now_ms: Callable[[], int] | None = None
    ) -> None:
        self._writer = writer
        self._limits = limits
        self._now_ms = now_ms or (lambda: time.time_ns() // 1_000_000)
        self._reported = False

    def run(self, seconds: float) -> bool:
        """Delete what exceeds the limits, for at most about so long. Return whether nothing is left to do.

        Raises ``RetriableError``, ``FatalError``.
        """
        until = time.monotonic() + seconds
        self._expire_by_age()
        while True:
            if not self._delete_step() and not self._shrink_step():
                return True
            if time.monotonic() >= until:
                return False

    def _expire_by_age(self) -> None:
        newest = self._edge(_READINGS, "max")
        if newest is None:
            return
        # The newest reading counts too: a clock that is years ahead must not delete everything.
        now = min(self._now_ms() // _MILLISECONDS_PER_HOUR, newest)
        if self._limits.readings_ms >= 0:
            self._raise_floor(_READINGS, now - self._limits.readings_ms // _MILLISECONDS_PER_HOUR)
        if self._limits.rollups_ms >= 0:
            first = now - self._limits.rollups_ms // _MILLISECONDS_PER_HOUR
            self._raise_floor(_FIVE_MINUTES, first)
            self._raise_floor(_ONE_HOUR, first)

    def _delete_step(self) -> bool:
        """Delete rows below a floor, or raise one if the file is too large. Return whether it did."""
        known = floors(self._writer.connection)
        for table in (_READINGS, _RECORDS, _FIVE_MINUTES, _ONE_HOUR):
            floor = known.get("reading" if table is _RECORDS else table.name)
            oldest = self._edge(table, "min")
            if floor is not None and oldest is not None and oldest + table.hours <= floor:
                self._writer.transact(lambda table=table, floor=floor: self._delete(table, floor))  # type: ignore[misc]
                return True
        return self._is_too_large() and self._expire_oldest()

    def _delete(self, table: _Table, floor: int) -> None:
        connection = self._writer.connection
        last = connection.execute(
            f"SELECT {table.key} FROM {table.name} ORDER BY {table.key} LIMIT 1 OFFSET ?", (_STEP,)
        ).fetchone()
        condition, values = f"{table.unit} < ?", (floor // table.hours,)
        if last is not None and last[0] < values[0]:
            condition, values = f"({table.key}) < ({', '.join('?' * len(last))})", last
        connection.execute(f"DELETE FROM {table.name} WHERE {condition}", values)

    def _is_too_large(self) -> bool:
        if self._limits.file_bytes < 0:
            return False
        connection = self._writer.connection
        pages = connection.pragma("page_count") - connection.pragma("freelist_count")
        return bool(pages * connection.pragma("page_size") > self._limits.file_bytes)

    def _expire_oldest(self) -> bool:
        """Raise the floor of a table by its oldest hour or day. Return whether there is one to delete."""
        newest = self._edge(_READINGS, "max")
        oldest = [self._edge(table, "min") for table in (_READINGS, _FIVE_MINUTES, _ONE_HOUR)]
        if newest is None or None in oldest:
            return False
        now = self._now_ms() // _MILLISECONDS_PER_HOUR
        if now >= (oldest[0] or 0):  # else the clock is not set yet
            newest = min(newest, now)  # a reading of the future must not let the present expire
        readings, five_minutes, one_hour = (newest - (hour or 0) for hour in oldest)
        for table, hours, finer in (
            (_ONE_HOUR, one_hour, five_minutes),
            (_FIVE_MINUTES, five_minutes, readings),
        ):
            if hours > _FACTOR * max(finer, 1) and hours >= 2 * 24:
                self._raise_floor(table, newest - hours + 24)
                return True
        if readings > 0:
            self._raise_floor(_READINGS, newest - readings + 1)
            return True
        if not self._reported:
            self._reported = True
            log.warning(
                "%s exceeds retention.bytes (%d) with the readings of one hour: raise it",
                *(self._writer.path, self._limits.file_bytes),
            )
        return False

    def _shrink_step(self) -> bool:
        """Return free pages to the disk, if the file is much larger than its limit."""
        limit = self._limits.file_bytes
        connection = self._writer.connection
        free = connection.pragma("freelist_count")
        size = connection.pragma("page_count") * connection.pragma("page_size")
        if limit < 0 or not free or size <= limit + limit // _SLACK:
            return False
        self._writer.transact(lambda: connection.execute(f"PRAGMA incremental_vacuum({_VACUUM_PAGES})").get)
        return True

    def _raise_floor(self, table: _Table, hour: int) -> None:
        hour = hour // table.hours * table.hours
        connection = self._writer.connection
        oldest = self._edge(table, "min")
        if oldest is None or oldest >= hour or floors(connection).get(table.name, oldest) >= hour:
            return
        self._writer.transact(
            lambda: connection.execute(
                "INSERT INTO floor VALUES (?1, ?2)"
                " ON CONFLICT (name) DO UPDATE SET hour = max(hour, excluded.hour)",
                (table.name, hour),
            )
        )

    def _edge(self, table: _Table, function: str) -> int | None:
        """Return the first hour of the oldest or newest rows of a table."""
        value = self._writer.read(f"SELECT {function}({table.unit}) FROM {table.name}")
        return None if value is None else value * table.hours
