"""Answers the questions of pages and ``tieline query`` from a history file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tieline_connectors.history.model.intervals import DAY
from tieline_connectors.history.model.stored_values import from_stored
from tieline_connectors.history.reading.chart import reduce_series
from tieline_connectors.history.reading.connections import Connection, Connections
from tieline_connectors.history.reading.rows import (
    clamp,
    floor_of,
    hours_with_rows,
    readings_of_hour,
    series_of,
    time_of,
)
from tieline_connectors.history.reading.search import search
from tieline_connectors.points.questions import KnownPoint, PointName, Search, Series, Value

_EXPORTED = 5_000
"""Values that are read at a time, without a statement that stays open between them."""


class HistoryStore:
    """A ``ReadingStore`` over the file of a sink ``history``, which may be writing it. Safe for many threads.

    The file need not exist yet: each call opens it if necessary, and raises ``StoreUnavailableError``.
    """

    def __init__(self, path: Path, seconds: float = 10.0) -> None:
        """``seconds``: the time limit of each call."""
        self._connections = Connections(path, seconds)

    @property
    def name(self) -> str:
        """The store in words."""
        return f"history file {self._connections.path}"

    def points(self) -> Sequence[KnownPoint]:
        """Return every point of which the file has a value or a rollup."""
        with self._connections.borrow() as connection:
            oldest = connection.value("SELECT min(day) FROM one_hour")
            if oldest is None:
                return []
            rows: list[Any] = connection.rows(
                "SELECT platform, device, point, topic, units, last_time FROM series"
                " JOIN publication ON publication.series = id AND number = last_publication"
                " WHERE last_time >= ?",
                (oldest * DAY,),
            )
        return [KnownPoint(PointName(*row[:3]), *row[3:]) for row in rows]

    def series(self, point: PointName, start: int, end: int, intervals: int) -> Series:
        """Return what a chart of about ``intervals`` intervals shows of a point."""
        with self._connections.borrow() as connection:
            return reduce_series(connection, point, start, end, intervals)

    def values(self, point: PointName, start: int, end: int, limit: int) -> Sequence[Value]:
        """Return up to ``limit`` values of a point, newest first."""
        with self._connections.borrow() as connection:
            return self._values(connection, point, start, end, limit, newest_first=True)

    def export(self, point: PointName, start: int, end: int) -> Iterator[Value]:
        """Yield all values of a point, oldest first, without holding them in memory."""
        while True:
            with self._connections.borrow() as connection:
                values = self._values(connection, point, start, end, _EXPORTED, newest_first=False)
            yield from values
            if len(values) < _EXPORTED:
                return
            start = values[-1].time + 1

    def search(
        self, search_for: Search, limit: int, before: int | None = None, *, newest: bool = True
    ) -> Sequence[dict[str, Any]]:
        """Return up to ``limit`` readings as documents, newest first; ``before``: older than this time only.

        A history has no commands. Raises ``ValueError`` if the pattern is not a regular expression.
        """
        if search_for.history is not None or search_for.command is not None:
            return []
        with self._connections.borrow() as connection:
            return search(connection, search_for, limit, before, newest)

    def close(self) -> None:
        """Close all connections."""
        self._connections.close()

    def _values(
        self,
        connection: Connection,
        point: PointName,
        start: int,
        end: int,
        limit: int,
        *,
        newest_first: bool,
    ) -> list[Value]:
        known = series_of(connection, point)
        if known is None or limit < 1:
            return []
        series, last_time = known
        start, end = clamp(connection, start, end, last_time)
        start = max(start, floor_of(connection, "reading") or start)
        units: dict[Any, Any] = dict(
            connection.rows("SELECT number, units FROM publication WHERE series = ?", (series,))  # type: ignore[arg-type]
        )
        values: list[Value] = []
        for hour in hours_with_rows(connection, series, start, end, newest_first):
            for rows in readings_of_hour(
                connection, series, hour, start, end, "value, publication", newest_first, limit
            ):
                for at, stored, number in rows:
                    values.append(Value(time_of(hour, at), from_stored(stored), units.get(number)))
                if len(values) >= limit:
                    return values[:limit]
        return values
