"""Searches for readings of many points, newest or oldest first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from tieline_connectors.history.model.intervals import HOUR, MAX_TIME
from tieline_connectors.history.model.stored_values import Stored, from_stored
from tieline_connectors.history.reading.connections import Connection
from tieline_connectors.history.reading.patterns import matching
from tieline_connectors.history.reading.rows import floor_of, readings_of_hour, time_of
from tieline_connectors.points.questions import Search

Document = dict[str, Any]

_COLUMNS = "value, delay, publication"


class _Point(NamedTuple):
    """A point that a search matches: its fields, and its publications by their number."""

    last_time: int
    fields: Document
    publications: dict[int, Document]


class _Row(NamedTuple):
    """A row that matches; rows of one time are in the order of their points."""

    time: int
    series: int
    publication: int
    delay: int
    value: Stored


def search(
    connection: Connection, conditions: Search, limit: int, before: int | None = None, newest: bool = True
) -> list[Document]:
    """Return up to ``limit`` readings as documents; ``before``: older than this time only."""
    points = _matching_points(connection, conditions)
    since = max(_or(conditions.since, -MAX_TIME), _or(floor_of(connection, "reading"), -MAX_TIME))
    until = min(_or(conditions.until, MAX_TIME), _or(before, MAX_TIME))
    documents: list[Document] = []
    for hour in _hours(connection, since, until, newest):
        rows = _rows_of_hour(connection, points, hour, (since, until), limit - len(documents), newest)
        documents += [_document(points[row.series], row) for row in rows]
        if len(documents) >= limit:
            break
    return documents


def _matching_points(connection: Connection, conditions: Search) -> dict[int, _Point]:
    """Return the points by their number, those with the newest values first."""
    query = (
        "SELECT series, last_time, number, topic, units, time_source, sender, platform, device, point"
        " FROM series JOIN publication ON publication.series = series.id"
    )
    wanted = {"device": conditions.device, "topic": conditions.topic}
    tests = {f"{name} = ?": value for name, value in wanted.items() if value is not None}
    if tests:
        query += f" WHERE {' AND '.join(tests)}"
    query += " ORDER BY last_time DESC"
    rows: list[Any] = connection.rows(query, tuple(tests.values()))
    if conditions.pattern is not None:
        topics = sorted({row[3] for row in rows})
        matched = set(matching(conditions.pattern, topics, connection.seconds_left))
        rows = [row for row in rows if row[3] in matched]
    points: dict[int, _Point] = {}
    for series, last_time, number, topic, units, time_source, sender, platform, device, name in rows:
        fields = {"platform": platform, "device": device, "point": name}
        publication = {"topic": topic, "units": units, "time_source": time_source, "sender": sender}
        points.setdefault(series, _Point(last_time, fields, {})).publications[number] = publication
    return points


def _hours(connection: Connection, since: int, until: int, newest: bool) -> Iterator[int]:
    """Yield the hours in a range that have readings of any point."""
    function, test, step = ("max", "<=", -1) if newest else ("min", ">=", 1)
    query = f"SELECT {function}(hour) FROM reading WHERE hour {test} ?"
    hour = connection.value(query, ((until - 1) // HOUR if newest else since // HOUR,))
    while hour is not None and since // HOUR <= hour <= (until - 1) // HOUR:
        yield hour
        hour = connection.value(query, (hour + step,))


def _rows_of_hour(
    connection: Connection,
    points: Mapping[int, _Point],
    hour: int,
    bounds: tuple[int, int],
    limit: int,
    newest: bool,
) -> list[_Row]:
    """Return the first ``limit`` matching rows of an hour, in their order."""
    found: list[_Row] = []
    for series, point in points.items():
        if point.last_time < bounds[0]:
            continue
        found += _rows(connection, series, point, hour, bounds, limit, newest)
        if len(found) >= 2 * limit:  # from now on only rows before the last of these matter
            found = sorted(found, reverse=newest)[:limit]
            last = found[-1].time
            bounds = (last, bounds[1]) if newest else (bounds[0], last + 1)
    return sorted(found, reverse=newest)[:limit]


def _rows(
    connection: Connection,
    series: int,
    point: _Point,
    hour: int,
    bounds: tuple[int, int],
    limit: int,
    newest: bool,
) -> list[_Row]:
    found: list[_Row] = []
    for rows in readings_of_hour(connection, series, hour, *bounds, _COLUMNS, newest, limit):
        found += [
            _Row(time_of(hour, at), series, publication, delay, value)
            for at, value, delay, publication in rows
            if publication in point.publications
        ]
        if len(found) >= limit:
            break
    return found


def _document(point: _Point, row: _Row) -> Document:
    published = point.publications[row.publication]
    return {
        "topic": published["topic"],
        "time": row.time,
        "time_source": published["time_source"],
        "received": row.time + row.delay,
        "sender": published["sender"],
        **point.fields,
        "value": from_stored(row.value),
        "units": published["units"],
    }


def _or(value: int | None, default: int) -> int:
    return default if value is None else value
