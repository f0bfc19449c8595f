"""Finds the time of a message: its ``TimeStamp`` header, else ``Date``, else its reception; pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import timedelta, timezone, tzinfo
from typing import Any, Literal, NamedTuple

from tieline_connectors.volttron_bus.messages.time_formats import EPOCH, FIRST, LAST, find_zone, parse_time

TimeSource = Literal["TIMESTAMP", "DATE", "RECEIVED", "TIMESTAMP_NAIVE", "DATE_NAIVE"]

NaiveZone = tzinfo | Literal["points"]
"""The zone of a time that has none; ``points`` stands for the zone that the message's points name."""

UTC = timezone.utc

_SOURCES: tuple[tuple[str, TimeSource, TimeSource], ...] = (
    ("TimeStamp", "TIMESTAMP", "TIMESTAMP_NAIVE"),
    ("Date", "DATE", "DATE_NAIVE"),
)


class Moment(NamedTuple):
    """A time in microseconds since 1970, UTC, and its source.

    ``unreadable`` is the name and value of a header whose time could not be read; else empty.
    """

    time: int
    source: TimeSource
    unreadable: str = ""


def message_time(
    headers: Mapping[str, Any], received: int, body: Any = None, naive: NaiveZone = UTC
) -> Moment:
    """Return the time of a message; if a source cannot be read, use the next one. Never raises.

    A time without a zone is read in the zone ``naive``, and its source ends in NAIVE. Header names are
    compared exactly first, then without regard to case, as VOLTTRON's own ``Headers`` does.
    """
    unreadable = ""
    for name, aware, without_zone in _SOURCES:
        value = headers.get(name)
        if value is None:
            value = next((other for key, other in headers.items() if key.lower() == name.lower()), None)
        if value is None:
            continue
        if parsed := parse_time(value):
            time, has_zone = parsed
            if has_zone:
                return Moment(time, aware, unreadable)
            return Moment(
                _in_zone(time, _zone_of(body) if naive == "points" else naive), without_zone, unreadable
            )
        unreadable = unreadable or f"{name}: {_to_text(value)}"
    return Moment(received, "RECEIVED", unreadable)


def reading_time(value: Any, point_zone: str | None, naive: NaiveZone = UTC) -> Moment | None:
    """Return the time of a logged value, a text or a number; ``None`` if it cannot be read.

    ``point_zone`` is the point's ``tz``, which applies to a time without a zone if ``naive`` is ``points``.
    Numbers before 1973 are seconds here, as the first data loggers wrote them.
    """
    if type(value) in (int, float) and 0 <= value < 100_000_000:
        return Moment(round(value * 1_000_000), "TIMESTAMP")
    parsed = parse_time(value)
    if parsed is None:
        return None
    time, has_zone = parsed
    if has_zone:
        return Moment(time, "TIMESTAMP")
    return Moment(_in_zone(time, find_zone(point_zone) if naive == "points" else naive), "TIMESTAMP_NAIVE")


def _to_text(value: Any) -> str:
    if type(value) is str:
        return value[:64].encode("ascii", "backslashreplace").decode()
    is_short = type(value) in (bool, float) or (type(value) is int and abs(value) < 2**64)
    return str(value) if is_short else type(value).__name__


def _zone_of(body: Any) -> tzinfo | None:
    """Return the zone of a message's points if they name exactly one, else ``None``."""
    names = {name for name in _zone_names(body) if type(name) is str}
    return find_zone(names.pop()) if len(names) == 1 else None


def _zone_names(body: Any) -> Iterable[Any]:
    """Return the ``tz`` of each point, in ``[content, metadata]`` or in logged data, ``{point: {tz, …}}``."""
    entries = body[1] if type(body) is list and len(body) == 2 else body
    if type(entries) is not dict:
        return ()
    point_zone = entries.get("tz")  # the metadata of a single point
    if type(point_zone) is str:
        return (point_zone,)
    return (entry.get("tz") for entry in entries.values() if type(entry) is dict)


def _in_zone(time: int, zone: tzinfo | None) -> int:
    """Read a time as local time in a zone; if the clock is put back then, use the first of two times."""
    if zone is None or zone is UTC:
        return time
    offset = (EPOCH + timedelta(microseconds=time)).replace(tzinfo=zone).utcoffset() or timedelta()
    local = time - offset // timedelta(microseconds=1)
    return local if FIRST <= local < LAST else time
