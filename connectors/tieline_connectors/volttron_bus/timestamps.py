"""When a message of the bus happened: its ``TimeStamp`` header, else ``Date``, else its reception; pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal, NamedTuple

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


def moment(headers: Mapping[str, Any], received: int) -> Moment:
    """Never raises; what is no time (or none from 1970 to 2199) counts as missing.

    A time without a zone is taken as UTC, and its source says so (NAIVE). Header names are compared
    exactly first, then without regard to case, as VOLTTRON's own ``Headers`` does.
    """
    for name, aware, naive in _SOURCES:
        text = headers.get(name)
        if text is None:
            text = next((value for key, value in headers.items() if key.lower() == name.lower()), None)
        if type(text) is str and (parsed := parse(text)):
            time, has_zone = parsed
            return Moment(time, aware if has_zone else naive)
    return Moment(received, "RECEIVED")


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
