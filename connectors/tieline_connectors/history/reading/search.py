"""Searches for readings of many points, newest or oldest first."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from tieline_connectors.history.model.intervals import HOUR, MAX_TIME
from tieline_connectors.history.model.stored_values import from_stored
from tieline_connectors.history.reading.connections import Connection
from tieline_connectors.history.reading.patterns import matching
from tieline_connectors.history.reading.rows import floor_of, readings_of_hour, time_of
from tieline_connectors.points.questions import Search

Document = dict[str, Any]

_COLUMNS = "value, delay, publication"


class _Point(NamedTuple):
    """A point that a search matches: its fields, and its publications by their number."""

    fields: Document
    publications: dict[int, Document]


def search(
    connection: Connection, conditions: Search, limit: int, before: int | None = None, newest: bool = True
) -> list[Document]:
    """Return up to ``limit`` readings as documents; ``before``: older than this time only."""
    points = _matching_points(connection, conditions)
    since = max(_or(conditions.since, -MAX_TIME), _or(floor_of(connection, "reading"), -MAX_TIME))
    until = min(_or(conditions.until, MAX_TIME), _or(before, MAX_TIME))
    documents: list[Document] = []
    for hour in _hours(connection, since, until, newest):
        of_hour: list[Document] = []
        for series, point in points.items():
            of_hour += _documents(connection, series, point, hour, (since, until), limit, newest)
        of_hour.sort(key=lambda document: (document["time"], document["device"], document["point"]))
        documents += reversed(of_hour) if newest else of_hour
        if len(documents) >= limit:
            break
    return documents[:limit]


def _matching_points(connection: Connection, conditions: Search) -> dict[int, _Point]:
    query = (
        "SELECT series, number, topic, units, time_source, sender, platform, device, point"
        " FROM series JOIN publication ON publication.series = series.id"
    )
    wanted = {"device": conditions.device, "topic": conditions.topic}
    tests = {f"{name} = ?": value for name, value in wanted.items() if value is not None}
    if tests:
        query += f" WHERE {' AND '.join(tests)}"
    rows: list[Any] = connection.rows(query, tuple(tests.values()))
    if conditions.pattern is not None:
        topics = sorted({row[2] for row in rows})
        matched = set(matching(conditions.pattern, topics, connection.seconds_left))
        rows = [row for row in rows if row[2] in matched]
    points: dict[int, _Point] = {}
    for series, number, topic, units, time_source, sender, platform, device, name in rows:
        fields = {"platform": platform, "device": device, "point": name}
        publication = {"topic": topic, "units": units, "time_source": time_source, "sender": sender}
        points.setdefault(series, _Point(fields, {})).publications[number] = publication
    return points


def _hours(connection: Connection, since: int, until: int, newest: bool) -> Iterator[int]:
    """Yield the hours in a range that have readings of any point."""
    function, test, step = ("max", "<=", -1) if newest else ("min", ">=", 1)
    query = f"SELECT {function}(hour) FROM reading WHERE hour {test} ?"
    hour = connection.value(query, ((until - 1) // HOUR if newest else since // HOUR,))
    while hour is not None and since // HOUR <= hour <= (until - 1) // HOUR:
        yield hour
        hour = connection.value(query, (hour + step,))


def _documents(
    connection: Connection,
    series: int,
    point: _Point,
    hour: int,
    bounds: tuple[int, int],
    limit: int,
    newest: bool,
) -> list[Document]:
    documents: list[Document] = []
    for rows in readings_of_hour(connection, series, hour, *bounds, _COLUMNS, newest, limit):
        for at, value, delay, publication in rows:
            if (published := point.publications.get(publication)) is not None:
                time = time_of(hour, at)
                documents.append(
                    {
                        "topic": published["topic"],
                        "time": time,
                        "time_source": published["time_source"],
                        "received": time + delay,
                        "sender": published["sender"],
                        **point.fields,
                        "value": from_stored(value),
                        "units": published["units"],
                    }
                )
        if len(documents) >= limit:
            break
    return documents


def _or(value: int | None, default: int) -> int:
    return default if value is None else value
