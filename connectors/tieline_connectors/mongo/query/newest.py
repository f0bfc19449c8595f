"""Reads documents newest first through an index on their time; pure, but for the given ``read``."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bson.datetime_ms import DatetimeMS

_SECOND = 1_000_000
_WINDOWS = (60 * _SECOND, 3600 * _SECOND, 86_400 * _SECOND, 30 * 86_400 * _SECOND)
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.timezone.utc)
_AGENTS_DATE = "%Y-%m-%d %H:%M:%S.%f"

Document = Mapping[str, Any]
Read = Callable[[int | None, int | None, int], Sequence[Document]]
"""Returns documents of a range of time, newest first up to the millisecond; a limit of 0 means all."""


def newest_first(read: Read, since: int | None, until: int | None, limit: int, now: int) -> list[Document]:
    """Return up to ``limit`` documents of a range, newest first.

    It reads the newest minute first, then an hour, a day, and so on, so that a server that sorts what it
    found does not have to find everything.
    """
    found: list[Document] = []
    anchor = (now if until is None else until) // 1000 * 1000
    for window in _WINDOWS:
        start = anchor - window
        if since is not None and start <= since:
            break
        found += _exact(read, start, until, limit - len(found))
        if len(found) >= limit:
            return found
        until = start
    return found + _exact(read, since, until, limit - len(found))


def _exact(read: Read, since: int | None, until: int | None, limit: int) -> list[Document]:
    """Return documents newest first up to the microsecond; the index orders them by milliseconds."""
    found = list(read(since, until, limit))
    if len(found) == limit:  # there may be more of the last millisecond, also newer ones
        start = time_of(found[-1]) // 1000 * 1000
        first = start if since is None else max(since, start)
        last = start + 1000 if until is None else min(until, start + 1000)
        found = [document for document in found if time_of(document) >= start + 1000]
        found += read(first, last, 0)
    return sorted(found, key=time_of, reverse=True)[:limit]


def time_of(document: Document) -> int:
    """Return the time of a document in microseconds, from the first field that has one."""
    time = document.get("time_us", document.get("time", document.get("date")))
    if isinstance(time, int):
        return time
    if isinstance(time, DatetimeMS):
        return int(time) * 1000
    if isinstance(time, str):
        try:
            time = dt.datetime.strptime(time, _AGENTS_DATE).replace(tzinfo=dt.timezone.utc)
        except ValueError:
            return 0
    return (time - _EPOCH) // dt.timedelta(microseconds=1) if isinstance(time, dt.datetime) else 0
