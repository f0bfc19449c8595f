"""When a message of the bus happened: its ``TimeStamp`` header, else ``Date``, else its reception; pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import timedelta, timezone, tzinfo
from typing import Any, Literal, NamedTuple

from tieline_connectors.volttron_bus.messages.time_formats import EPOCH, FIRST, LAST, find_zone, parse_time

TimeSource = Literal["TIMESTAMP", "DATE", "RECEIVED", "TIMESTAMP_NAIVE", "DATE_NAIVE"]

NaiveZone = tzinfo | Literal["points"]
"""What a time without a zone is taken in; ``points``: the zone that the message's points name."""

UTC = timezone.utc

_SOURCES: tuple[tuple[str, TimeSource, TimeSource], ...] = (
    ("TimeStamp", "TIMESTAMP", "TIMESTAMP_NAIVE"),
    ("Date", "DATE", "DATE_NAIVE"),
)


class Moment(NamedTuple):
    """Microseconds since 1970, UTC, and where they came from.

    ``unreadable``: the text of a header that should have said it and could not be read; else empty.
    """

    time: int
    source: TimeSource
    unreadable: str = ""


def message_time(
    headers: Mapping[str, Any], received: int, body: Any = None, naive: NaiveZone = UTC
) -> Moment:
    """Never raises; a time that cannot be read (``time_formats``) leaves it to the next source.

    A time without a zone is taken in ``naive``, and its source says NAIVE. Header names are compared
    exactly first, then without regard to case, as VOLTTRON's own ``Headers`` does.
    """
    unreadable = ""
    for name, aware, without_zone in _SOURCES:
        given = headers.get(name)
        if given is None:
            given = next((value for key, value in headers.items() if key.lower() == name.lower()), None)
        if given is None:
            continue
        if parsed := parse_time(given):
            time, has_zone = parsed
            if has_zone:
                return Moment(time, aware, unreadable)
            return Moment(
                _in_zone(time, _zone_of(body) if naive == "points" else naive), without_zone, unreadable
            )
        unreadable = unreadable or f"{name}: {_shown(given)}"
    return Moment(received, "RECEIVED", unreadable)


def reading_time(given: Any, point_zone: str | None, naive: NaiveZone = UTC) -> Moment | None:
    """The time beside a logged value, text or a number; ``None`` if it cannot be read.

    ``point_zone``: the ``tz`` that the point names, which a time without a zone has with ``naive="points"``.
    Numbers before 1973 are seconds here: the first data loggers had their time so.
    """
    if type(given) in (int, float) and 0 <= given < 100_000_000:
        return Moment(round(given * 1_000_000), "TIMESTAMP")
    parsed = parse_time(given)
    if parsed is None:
        return None
    time, has_zone = parsed
    if has_zone:
        return Moment(time, "TIMESTAMP")
    return Moment(_in_zone(time, find_zone(point_zone) if naive == "points" else naive), "TIMESTAMP_NAIVE")


def _shown(given: Any) -> str:
    if type(given) is str:
        return given[:64].encode("ascii", "backslashreplace").decode()
    is_short = type(given) in (bool, float) or (type(given) is int and abs(given) < 2**64)
    return str(given) if is_short else type(given).__name__


def _zone_of(body: Any) -> tzinfo | None:
    """The zone on which all points of a message agree that say one."""
    names = {name for name in _zone_names(body) if type(name) is str}
    return find_zone(names.pop()) if len(names) == 1 else None


def _zone_names(body: Any) -> Iterable[Any]:
    """Of ``[content, metadata]``, for one point or for many; of what is logged, ``{point: {tz, …}}``."""
    entries = body[1] if type(body) is list and len(body) == 2 else body
    if type(entries) is not dict:
        return ()
    own = entries.get("tz")
    if type(own) is str:
        return (own,)
    return (entry.get("tz") for entry in entries.values() if type(entry) is dict)


def _in_zone(time: int, place: tzinfo | None) -> int:
    """A time read as UTC that was meant as local time there; the first one where the clock is put back."""
    if place is None or place is UTC:
        return time
    offset = (EPOCH + timedelta(microseconds=time)).replace(tzinfo=place).utcoffset() or timedelta()
    local = time - offset // timedelta(microseconds=1)
    return local if FIRST <= local < LAST else time
