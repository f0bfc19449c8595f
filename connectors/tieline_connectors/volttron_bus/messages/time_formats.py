"""Parses the unambiguous forms in which agents write a time; pure.

- ISO 8601: ``2026-03-01``, with ``T`` or a space ``12:00``, ``12:00:30``, ``12:00:30.123456`` (or a
  comma); the basic form ``20260301T120030``. A zone, with or without a space before it: ``Z``, ``UTC``,
  ``GMT``, ``+01``, ``+0100``, ``+01:00``, a name such as ``Europe/Paris``, Java's ``+01:00[Europe/Paris]``.
- RFC 2822 and HTTP: ``Sun, 01 Mar 2026 12:00:30 GMT``, ``1 Mar 2026 12:00 -0500``; C's ``ctime``:
  ``Sun Mar  1 12:00:30 2026``.
- Seconds since 1970, or milli-, micro- or nanoseconds, as a number or text; from 1973 on, where their sizes
  differ.

Times lie from 1970 to 2199. These forms are ambiguous and are not read: day before month, month before day,
other abbreviations of zones (``CET``, ``IST``), two-digit years.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta, tzinfo
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo

EPOCH = datetime(1970, 1, 1)
FIRST, LAST = 0, int((datetime(2200, 1, 1) - EPOCH).total_seconds()) * 1_000_000
"""In microseconds."""

_MICROSECOND = timedelta(microseconds=1)
_DAY = 24 * 60 * 60
_MAX_LENGTH = 80
_FRACTION = r"(?:[.,](\d{1,12}))?"
_NAMED_ZONE = r"[A-Za-z_]+(?:/[A-Za-z0-9_+-]+){1,2}"
_ZONE = rf" ?(?:([Zz]|UTC|GMT)|([+-])(\d\d)(?::?(\d\d))?(?:\[[A-Za-z0-9_/+-]+\])?|\[?({_NAMED_ZONE})\]?)"
_EXTENDED = re.compile(
    rf"(\d{{4}})-(\d\d)-(\d\d)(?:(?:[Tt]| +)(\d\d):(\d\d)(?::(\d\d){_FRACTION})?)?(?:{_ZONE})?", re.ASCII
)
_BASIC = re.compile(rf"(\d{{4}})(\d\d)(\d\d)[Tt](\d\d)(\d\d)(?:(\d\d){_FRACTION})?(?:{_ZONE})?", re.ASCII)
_RFC_2822 = re.compile(
    r"(?:[A-Z][a-z]{2,8}, ?)?\d{1,2}[ -][A-Z][a-z]{2}[ -]\d{4} +\d\d:\d\d(?::\d\d)?"
    r"( (?:GMT|UTC?|Z|[ECMP][SD]T|[+-]\d{4}(?: \([A-Za-z ]+\))?))?",
    re.ASCII,
)
_C = re.compile(r"[A-Z][a-z]{2} [A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d \d{4}", re.ASCII)
_NUMBER = re.compile(r"\d{9,19}(?:\.\d{1,9})?", re.ASCII)
_SINCE_1973 = 100_000_000


def parse_time(value: Any) -> tuple[int, bool] | None:
    """Return microseconds since 1970, UTC, and whether it had a zone; ``None`` for any other value.

    A time without a zone is read as UTC. Digits beyond the microsecond are dropped.
    """
    if type(value) is int or type(value) is float:
        return _epoch(value)
    if type(value) is not str or len(value) > _MAX_LENGTH:
        return None
    text = value.strip()
    if match := _EXTENDED.fullmatch(text) or _BASIC.fullmatch(text):
        return _iso_8601(*match.groups())
    if _NUMBER.fullmatch(text):
        return _epoch(float(text) if "." in text else int(text))
    if (match := _RFC_2822.fullmatch(text)) or _C.fullmatch(text):
        return _rfc_2822(text, has_zone=bool(match and match[1]))
    return None


def find_zone(name: str | None) -> tzinfo | None:
    """Return the zone of this name; ``None`` if it is unknown."""
    return _zone(name) if name and len(name) <= 64 else None


@lru_cache(maxsize=1024)  # otherwise an unknown name would be looked up on the disk for every message
def _zone(name: str) -> tzinfo | None:
    try:
        return ZoneInfo(name)
    except (LookupError, ValueError, OSError):  # unknown; not a name (``../x``); a folder (``America``)
        return None


def _iso_8601(
    year: str, month: str, day: str, hour: str | None, minute: str | None, second: str | None,
    fraction: str | None, zulu: str | None, sign: str | None, off_hours: str | None,
    off_minutes: str | None, name: str | None,
) -> tuple[int, bool] | None:  # fmt: skip
    offset = int(off_hours or 0) * 3600 + int(off_minutes or 0) * 60
    if offset >= _DAY or int(off_minutes or 0) > 59:
        return None
    try:
        local = datetime(
            int(year),
            int(month),
            int(day),
            int(hour or 0),
            int(minute or 0),
            int(second or 0),
        )
    except ValueError:
        return None
    if name is not None:
        named_zone = find_zone(name)
        if named_zone is None:
            return None
        offset, sign = int((local.replace(tzinfo=named_zone).utcoffset() or timedelta()).total_seconds()), "+"
    since = local - EPOCH
    seconds = since.days * _DAY + since.seconds + (offset if sign == "-" else -offset)
    return _within(seconds * 1_000_000 + int(f"{fraction or '':0<6}"[:6]), has_zone=bool(zulu or sign))


def _rfc_2822(text: str, *, has_zone: bool) -> tuple[int, bool] | None:
    try:
        parsed = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    since = parsed.replace(tzinfo=None) - EPOCH - (parsed.utcoffset() or timedelta())
    return _within(since // _MICROSECOND, has_zone=has_zone)


def _epoch(number: float) -> tuple[int, bool] | None:
    """Return the time of a number in any unit; the units' ranges from 1973 to 2199 do not overlap."""
    for per_second in (1, 1_000, 1_000_000, 1_000_000_000):
        if _SINCE_1973 * per_second <= number < LAST // 1_000_000 * per_second:
            if type(number) is int:
                return number * 1_000_000 // per_second, True
            return _within(round(number * (1_000_000 / per_second)), has_zone=True)
    return None


def _within(time: int, *, has_zone: bool) -> tuple[int, bool] | None:
    return (time, has_zone) if FIRST <= time < LAST else None
