"""Reduces the values of one point to what a chart shows: from its readings, or from their rollups."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from tieline_connectors.history.database import NUMBER
from tieline_connectors.history.model.intervals import DAY, FIVE_MINUTES, HOUR, MIDDLE, round_up
from tieline_connectors.history.reading.connections import Connection
from tieline_connectors.history.reading.reducer import Reducer
from tieline_connectors.history.reading.rows import (
    clamp,
    floor_of,
    hours_with_rows,
    readings_of_hour,
    series_of,
)
from tieline_connectors.points.questions import Bucket, PointName, Series

_READING = f"{NUMBER}, value IS NULL"
_NUMBERS = "coalesce(first, minimum), minimum, coalesce(maximum, minimum), coalesce(last, maximum, minimum)"

_ROLLUPS = {
    FIVE_MINUTES: (
        "WITH RECURSIVE hours(hour) AS (SELECT ?1 UNION ALL SELECT hour + 1 FROM hours WHERE hour < ?2)"
        f" SELECT rollup.hour * {HOUR} + slot * {FIVE_MINUTES} AS start, {_NUMBERS}, skipped"
        " FROM hours CROSS JOIN five_minutes AS rollup"
        " WHERE rollup.hour = hours.hour AND series = ?3 ORDER BY start",
        HOUR,
    ),
    HOUR: (
        "WITH RECURSIVE days(day) AS (SELECT ?1 UNION ALL SELECT day + 1 FROM days WHERE day < ?2)"
        f" SELECT rollup.day * {DAY} + hour_of_day * {HOUR} AS start, {_NUMBERS}, skipped"
        " FROM days CROSS JOIN one_hour AS rollup"
        " WHERE rollup.day = days.day AND series = ?3 ORDER BY start",
        DAY,
    ),
}
"""The query of each level of rollups, by its width, and what the first part of its key counts."""

_NOTHING = Series(0, (), False)


class _Range(NamedTuple):
    """The rows of a point that a chart shows: ``start`` up to ``end``.

    Readings before ``kept`` have expired. Rollups are as fine as ``finest`` for the whole range; 0: readings.
    """

    series: int
    start: int
    end: int
    kept: int
    finest: int


def reduce_series(connection: Connection, point: PointName, start: int, end: int, intervals: int) -> Series:
    """Return what a chart of about ``intervals`` intervals shows of a point; see ``ReadingStore.series``.

    A range with few readings is returned reading by reading. A long range is read from rollups, and only
    its ends, which no rollup fits exactly, from readings. If readings have expired, rollups alone answer:
    intervals are then at least as long as a rollup, and the first and last one may reach beyond the range.
    """
    known = series_of(connection, point)
    shown = None if known is None else _range(connection, known, start, end)
    if shown is None:
        return _NOTHING
    if not shown.finest and (few := _few_readings(connection, shown, 2 * intervals + 2)) is not None:
        return few
    wanted = max(1, -(-(end - start) // intervals))
    level = max(shown.finest, _level_for(wanted))
    width = max(1, round(wanted / level)) * level if level else wanted
    reducer = Reducer(width)
    if level:
        _add_rollups_and_ends(connection, shown, level, reducer)
    else:
        _add_readings(connection, shown, shown.start, shown.end, reducer)
    return Series(width, reducer.buckets(), reducer.skipped)


def _range(connection: Connection, known: tuple[int, int], start: int, end: int) -> _Range | None:
    series, last_time = known
    start, end = clamp(connection, start, end, last_time)
    if start >= end:
        return None
    kept, finest = start, 0
    for table, coarser in (("reading", FIVE_MINUTES), ("five_minutes", HOUR)):
        floor = floor_of(connection, table)
        if floor is None or floor <= start:
            break
        if next(hours_with_rows(connection, series, start, min(floor, end)), None) is None:
            break
        finest = coarser
        if table == "reading":
            kept = floor
    return _Range(series, start, end, kept, finest)


def _level_for(width: int) -> int:
    """Return the widest rollups that an interval of about this width may consist of; 0: readings."""
    return next((level for level in (HOUR, FIVE_MINUTES) if 2 * level <= 3 * width), 0)


def _few_readings(connection: Connection, shown: _Range, limit: int) -> Series | None:
    """Return a bucket for each reading, or ``None`` if there are more than ``limit``."""
    buckets: list[Bucket] = []
    count, skipped = 0, False
    for base, rows in _readings(connection, shown.series, shown.start, shown.end, limit + 1):
        count += len(rows)
        if count > limit:
            return None
        for at, number, is_null in rows:
            if number is not None:
                value = float(number)
                buckets.append(Bucket(base + at, value, value, value, value))
            elif not is_null:
                skipped = True
    return Series(0, buckets, skipped)


def _add_rollups_and_ends(connection: Connection, shown: _Range, level: int, reducer: Reducer) -> None:
    first, last = round_up(shown.start, level), shown.end // level * level
    if shown.start < shown.kept:
        first = min(first, shown.start // level * level)
    if last < shown.kept:
        last = round_up(shown.end, level)
    if first >= last:
        _add_readings(connection, shown, shown.start, shown.end, reducer)
        return
    _add_readings(connection, shown, shown.start, first, reducer)
    query, unit = _ROLLUPS[level]
    rows: list[Any] = connection.rows(query, (first // unit, (last - 1) // unit, shown.series))
    reducer.add_rollups([row for row in rows if first <= row[0] < last])
    _add_readings(connection, shown, last, shown.end, reducer)


def _add_readings(connection: Connection, shown: _Range, start: int, end: int, reducer: Reducer) -> None:
    for base, rows in _readings(connection, shown.series, start, end):
        reducer.add_readings(base, rows)


def _readings(
    connection: Connection, series: int, start: int, end: int, limit: int = 5_000
) -> Iterator[tuple[int, Sequence[tuple[int, float | None, int]]]]:
    """Yield lists of ``(at, number, whether it is null)``, each with the time from which ``at`` counts."""
    for hour in hours_with_rows(connection, series, start, end):
        for rows in readings_of_hour(connection, series, hour, start, end, _READING, limit=limit):
            yield hour * HOUR + MIDDLE, rows
