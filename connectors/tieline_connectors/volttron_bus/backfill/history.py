"""Checks what a historian answers, and rebuilds the messages of the bus from it; pure.

A historian stores points, each under its own topic: ``campus/ahu1/Temp`` for the point ``Temp`` of
``devices/campus/ahu1/all``. The points of one device with one time were one message.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta, timezone
from typing import Any, NamedTuple

from tieline_connectors.volttron_bus.messages.time_formats import parse_time
from tieline_connectors.volttron_bus.vip.frames import CHARSET, PROTOCOL

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


class InvalidHistoryError(Exception):
    """The historian's answer has another form than it should."""


class Page(NamedTuple):
    """A part of a device's history. All of it up to ``position`` (µs) is here, and nothing after it.

    ``readings``: time (µs) → point → value, in the order of time. ``is_last``: nothing follows in the range
    that was asked for. ``invalid`` rows have no time or another form; ``outside`` ones were not asked for.
    """

    readings: dict[int, dict[str, Any]]
    position: int
    is_last: bool
    invalid: int = 0
    outside: int = 0


def points_by_device(topics: Any, devices: Iterable[str]) -> dict[str, dict[str, str]]:
    """Return for each of these devices its topics in the historian, each with its point.

    A historian compares topics without regard to case. A point whose name contains a slash is not found,
    since it cannot be distinguished from a point of another device. Raises ``InvalidHistoryError``.
    """
    if type(topics) is not list:
        raise InvalidHistoryError("its list of topics is not a list")
    by_path = {device.lower(): device for device in devices}
    found: dict[str, dict[str, str]] = {}
    for topic in topics:
        if type(topic) is not str:
            raise InvalidHistoryError("a topic in its list is not text")
        path, _, point = topic.rpartition("/")
        device = by_path.get(path.lower())
        if device is not None and point:
            found.setdefault(device, {})[topic] = point
    return found


def parse_metadata(answer: Any, points: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Return the metadata of each point that has some. Raises ``InvalidHistoryError``."""
    if type(answer) is not dict:
        raise InvalidHistoryError("its metadata is not an object")
    metadata = {}
    for topic, point in points.items():
        entry = answer.get(topic)
        if entry is not None and type(entry) is not dict:
            raise InvalidHistoryError(f"its metadata of {topic[:200]} is not an object")
        if entry:
            metadata[point] = entry
    return metadata


def parse_page(answer: Any, points: Mapping[str, str], start: int, end: int, count: int) -> Page:
    """Return the page in an answer to a query of all topics in ``points``, each with its point.

    ``start`` and ``end`` (µs, without the end itself) and ``count`` rows for each topic were asked for. A
    topic with that many rows may have more, so the page ends where the first such topic ends. Raises
    ``InvalidHistoryError`` if the answer as a whole cannot be used.
    """
    times: dict[int, dict[str, Any]] = {}
    position, is_last = end - 1, True
    invalid = outside = 0
    for topic, rows in _rows_by_topic(answer, points).items():
        if len(rows) > count:
            raise InvalidHistoryError(f"it answered {len(rows)} rows, and {count} were asked for")
        last = start - 1
        for row in rows:
            time = _row_time(row)
            if time is None:
                invalid += 1
            elif not start <= time < end:
                outside += 1
            elif time < last:
                raise InvalidHistoryError("its rows are not in the order of time")
            else:
                last = time
                times.setdefault(time, {})[points[topic]] = row[1]
        if len(rows) == count:
            if last < start:
                raise InvalidHistoryError("no row of a full page is within the time that was asked for")
            position, is_last = min(position, last), False
    readings = {time: times[time] for time in sorted(times) if time <= position}
    return Page(readings, position, is_last, invalid, outside)


def to_historian_time(time: int) -> str:
    """Return µs since 1970 in the form in which a historian reads a time."""
    return (_EPOCH + timedelta(microseconds=time)).isoformat(timespec="microseconds")


def rebuild_message(
    topic: str, form: str, time: int, points: Mapping[str, Any], metadata: Mapping[str, Any], sender: str
) -> list[bytes]:
    """Return the frames of the message that had these points, as if it came from the bus.

    What a historian does not store is lost: the sender, and all headers but the time.
    """
    content = dict(points)
    body: Any = content
    if form == "LIST":
        body = [content]
    elif form == "PAIR":
        body = [content, {point: metadata[point] for point in content if point in metadata}]
    data = {"sender": sender, "headers": {"TimeStamp": to_historian_time(time)}, "message": body}
    envelope = [b"", PROTOCOL, b"", b"", b"pubsub", b"publish"]
    return [*envelope, topic.encode(CHARSET), json.dumps(data).encode("ascii")]


def _rows_by_topic(answer: Any, points: Mapping[str, str]) -> dict[str, list[Any]]:
    """Return the rows of each topic. An answer for one topic has them without its name."""
    if type(answer) is not dict:
        raise InvalidHistoryError("its answer is not an object")
    values = answer.get("values", [])
    if type(values) is list and not values:
        return {}
    if type(values) is list and len(points) == 1:
        return dict.fromkeys(points, values)
    if type(values) is not dict:
        raise InvalidHistoryError("its values are not an object")
    for topic, rows in values.items():
        if topic not in points:
            raise InvalidHistoryError("it answered a topic that was not asked for")
        if type(rows) is not list:
            raise InvalidHistoryError(f"its values of {topic[:200]} are not a list")
    return values


def _row_time(row: Any) -> int | None:
    if type(row) is not list or len(row) != 2 or type(row[0]) is not str:
        return None
    parsed = parse_time(row[0])
    return None if parsed is None else parsed[0]
