"""Finds the rows of one point: hours that have some, and the readings in them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from tieline_connectors.history.model.intervals import DAY, HOUR, MIDDLE, join, split
from tieline_connectors.history.reading.connections import Connection
from tieline_connectors.points.questions import PointName

_DAYS = 400
"""Days of which the hours are read at a time."""
_ROWS = 5_000
"""Rows that are read at a time."""

_HOURS = """
WITH RECURSIVE days(day) AS (SELECT ?1 UNION ALL SELECT day + 1 FROM days WHERE day < ?2)
SELECT one_hour.day * 24 + hour_of_day FROM days CROSS JOIN one_hour
WHERE one_hour.day = days.day AND series = ?3 AND one_hour.day * 24 + hour_of_day BETWEEN ?4 AND ?5
ORDER BY 1
"""


def series_of(connection: Connection, point: PointName) -> tuple[int, int] | None:
    """Return the number of a point and the time of its newest value, or ``None`` if it is unknown."""
    rows: list[Any] = connection.rows(
        "SELECT id, last_time FROM series WHERE platform = ? AND device = ? AND point = ?", tuple(point)
    )
    return rows[0] if rows else None


def floor_of(connection: Connection, table: str) -> int | None:
    """Return the first time of which a table keeps all rows, or ``None`` if nothing has expired."""
    hour = connection.value("SELECT hour FROM floor WHERE name = ?", (table,))
    return None if hour is None else hour * HOUR


def clamp(connection: Connection, start: int, end: int, last_time: int) -> tuple[int, int]:
    """Return the part of a range in which a point can have rows."""
    oldest = connection.value("SELECT min(day) FROM one_hour")
    if oldest is None:
        return start, start
    return max(start, oldest * DAY), min(end, last_time + 1)


def hours_with_rows(
    connection: Connection, series: int, start: int, end: int, newest_first: bool = False
) -> Iterator[int]:
    """Yield the hours of a range in which a point has, or had, readings."""
    if start >= end:
        return
    first, last = start // HOUR, (end - 1) // HOUR
    blocks: Sequence[int] = range(first // 24, last // 24 + 1, _DAYS)
    for day in reversed(blocks) if newest_first else blocks:
        rows: list[Any] = connection.rows(
            _HOURS, (day, min(day + _DAYS - 1, last // 24), series, first, last)
        )
        yield from (hour for (hour,) in (reversed(rows) if newest_first else rows))


def readings_of_hour(
    connection: Connection,
    series: int,
    hour: int,
    start: int,
    end: int,
    columns: str = "value",
    newest_first: bool = False,
    limit: int = _ROWS,
) -> Iterator[list[Any]]:
    """Yield lists of rows ``(at, *columns)`` of one hour that lie in a range."""
    order = " DESC" if newest_first else ""
    query = (
        f"SELECT at, {columns} FROM reading WHERE hour = ? AND series = ? AND at >= ? AND at < ?"
        f" ORDER BY at{order} LIMIT {min(limit, _ROWS)}"
    )
    low = -MIDDLE if start <= hour * HOUR else split(start)[1]
    high = MIDDLE if end >= (hour + 1) * HOUR else split(end)[1]
    while rows := connection.rows(query, (hour, series, low, high)):
        yield rows
        if len(rows) < min(limit, _ROWS):
            return
        last: Any = rows[-1][0]
        low, high = (low, last) if newest_first else (last + 1, high)


def time_of(hour: int, at: int) -> int:
    """Return the time of a row in microseconds."""
    return join(hour, at)
