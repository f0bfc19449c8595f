"""When a message of the bus happened: its ``TimeStamp`` header, else ``Date``, else its reception; pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta, tzinfo
from functools import lru_cache
from typing import Any, Literal, NamedTuple
from zoneinfo import ZoneInfo

TimeSource = Literal["TIMESTAMP", "DATE", "RECEIVED", "TIMESTAMP_NAIVE", "DATE_NAIVE"]

_ISO_8601 = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)(?:[Tt ](\d\d):(\d\d)(?::(\d\d)(?:[.,](\d{1,9}))?)?)?"
    r" ?(?:([Zz])|([+-])(\d\d):?(\d\d)?)?",
    re.ASCII,
)
_EPOCH = datetime(1970, 1, 1)
_DAY = 24 * 60 * 60
_FIRST, _LAST = 0, int((datetime(2200, 1, 1) - _EPOCH).total_seconds()) * 1_000_000
_SOURCES: tuple[tuple[str, TimeSource, TimeSource], ...] = (
    ("TimeStamp", "TIMESTAMP", "TIMESTAMP_NAIVE"),
    ("Date", "DATE", "DATE_NAIVE"),
)


class Moment(NamedTuple):
    """Microseconds since 1970, UTC, and where they came from."""

    time: int
    source: TimeSource


def moment(headers: Mapping[str, Any], received: int, body: Any = None) -> Moment:
    """Never raises; what is no time (or none from 1970 to 2199) counts as missing.

    A time without a zone is taken in the zone of the points in ``body`` (their ``tz``) where these agree,
    else as UTC, and its source says so (NAIVE). Header names are compared exactly first, then without
    regard to case, as VOLTTRON's own ``Headers`` does.
    """
    for name, aware, naive in _SOURCES:
        text = headers.get(name)
        if text is None:
            text = next((value for key, value in headers.items() if key.lower() == name.lower()), None)
        if type(text) is str and (parsed := parse(text)):
            time, has_zone = parsed
            return Moment(time, aware) if has_zone else Moment(_in_zone(time, _zone_of(body)), naive)
    return Moment(received, "RECEIVED")


def of_text(text: str, point_zone: tzinfo | None) -> Moment | None:
    """The time beside a value, in the zone of its point if it has none of its own; none if it is no time."""
    parsed = parse(text)
    if parsed is None:
        return None
    time, has_zone = parsed
    return Moment(time, "TIMESTAMP") if has_zone else Moment(_in_zone(time, point_zone), "TIMESTAMP_NAIVE")


def epoch(seconds: float) -> Moment | None:
    """The time of so many seconds since 1970; none beyond 1970 to 2199 (or NaN)."""
    if not _FIRST <= seconds < _LAST // 1_000_000:
        return None
    return Moment(round(seconds * 1_000_000), "TIMESTAMP")


def zone(name: str | None) -> tzinfo | None:
    """The zone of this name; none where nobody knows it."""
    return _zone(name) if name and len(name) <= 64 else None


@lru_cache(maxsize=1024)  # a name that is none would be looked for on the disk at every message
def _zone(name: str) -> tzinfo | None:
    try:
        return ZoneInfo(name)
    except (LookupError, ValueError, OSError):  # unknown; no name (``../x``); a folder (``America``)
        return None


def parse(text: str) -> tuple[int, bool] | None:
    """ISO 8601 to microseconds since 1970, UTC, and whether a zone was given; none if it is no such time.

    Digits beyond the microsecond are cut off.
    """
    if len(text) > 64 or not (match := _ISO_8601.fullmatch(text.strip())):
        return None
    year, month, day, hour, minute, second, fraction, zulu, sign, off_hours, off_minutes = match.groups()
    offset = int(off_hours or 0) * 3600 + int(off_minutes or 0) * 60
    if offset >= _DAY or int(off_minutes or 0) > 59:
        return None
    try:
        local = datetime(int(year), int(month), int(day), int(hour or 0), int(minute or 0), int(second or 0))
    except ValueError:
        return None
    since = local - _EPOCH
    seconds = since.days * _DAY + since.seconds + (offset if sign == "-" else -offset)
    time = seconds * 1_000_000 + int(f"{fraction or '':0<6}"[:6])
    if not _FIRST <= time < _LAST:
        return None
    return time, bool(zulu or sign)


def _zone_of(body: Any) -> tzinfo | None:
    """The zone on which all points of a message agree that say one."""
    names = {name for name in _zone_names(body) if type(name) is str}
    return zone(names.pop()) if len(names) == 1 else None


def _zone_names(body: Any) -> Iterable[Any]:
    """Of ``[content, metadata]``, for one point or for many; of what is logged, ``{point: {tz, …}}``."""
    entries = body[1] if type(body) is list and len(body) == 2 else body
    if type(entries) is not dict:
        return ()
    own = entries.get("tz")
    if type(own) is str:
        return (own,)
    return (entry.get("tz") for entry in entries.values() if type(entry) is dict)


def _in_zone(time: int, zone: tzinfo | None) -> int:
    """A time read as UTC that was meant as local time there; the first one where the clock is put back."""
    if zone is None:
        return time
    offset = (_EPOCH + timedelta(microseconds=time)).replace(tzinfo=zone).utcoffset() or timedelta()
    local = time - offset // timedelta(microseconds=1)
    return local if _FIRST <= local < _LAST else time
