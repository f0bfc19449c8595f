"""What a chart shows: its points and its range, as the address of the page says; pure.

``from`` and ``to`` are times in ISO 8601, or a time span ago such as ``15m``, ``6h``, ``30d``. Without ``to``
the range ends now, and the chart is live.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import NamedTuple
from urllib.parse import urlencode

from tieline.api.commands import parse_time

MAX_POINTS = 8
RANGES = (
    ("15m", "15 min"),
    ("1h", "1 h"),
    ("6h", "6 h"),
    ("1d", "1 day"),
    ("7d", "7 days"),
    ("30d", "30 days"),
    ("365d", "1 year"),
)
_DEFAULT = "1h"
_FEWEST, _INTERVALS, _MOST = 10, 300, 2000
_SHORTEST, _LONGEST = 1_000_000, 20 * 366 * 86400 * 1_000_000
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.timezone.utc)
_LAST = 253_402_300_799_000_000
"""The end of the year 9999."""


class ViewError(ValueError):
    """The address does not describe a chart; the message says what is wrong."""


class ChartView(NamedTuple):
    """One chart. Times are in microseconds since 1970; ``start`` is included, ``end`` is not."""

    points: Sequence[str]
    """The texts of the points, as in the address."""
    start: int
    end: int
    span: str
    """The range as a time span until now, such as ``1h``; empty for a fixed range."""
    is_live: bool
    intervals: int

    def query(self, **changes: str) -> str:
        """Return the address of this view, with changed parameters; an empty one is left out."""
        times = {"from": self.span or _iso(self.start), "to": "" if self.is_live else _iso(self.end)}
        given = [(name, value) for name, value in (times | changes).items() if value]
        return urlencode([*(("point", point) for point in self.points), *given], errors="replace")

    def at(self, start: int, end: int) -> ChartView:
        """Return the same chart with another, fixed range."""
        start = max(0, start)
        return self._replace(start=start, end=max(start + _SHORTEST, end), span="", is_live=False)

    def without(self, point: str) -> ChartView:
        """Return the same chart without a point."""
        return self._replace(points=[each for each in self.points if each != point])

    def moves(self) -> Mapping[str, ChartView]:
        """Return the views that the buttons lead to, by their text."""
        length = self.end - self.start
        return {
            "Earlier": self.at(self.start - length // 2, self.end - length // 2),
            "Later": self.at(self.start + length // 2, self.end + length // 2),
            "Zoom in": self.at(self.start + length // 4, self.end - length // 4),
            "Zoom out": self.at(self.start - length // 2, self.end + length // 2),
        }


def parse_view(
    points: Sequence[str], query: Mapping[str, str], zone: dt.tzinfo, now: dt.datetime
) -> ChartView:
    """Return the view of an address. Raises ``ViewError``.

    ``zone``: that of times without one, which forms send.
    """
    chosen = list(dict.fromkeys(point for point in points if point))
    if len(chosen) > MAX_POINTS:
        raise ViewError(f"A chart shows at most {MAX_POINTS} points, not {len(chosen)}. Select fewer")
    begin, until = query.get("from", "").strip() or _DEFAULT, query.get("to", "").strip()
    start = parse_time_in(begin, zone, now)
    end = parse_time_in(until, zone, now) if until else _microseconds(now)
    if not _SHORTEST <= end - start <= _LONGEST:
        raise ViewError("The range must begin before it ends, and cover 1 second to 20 years")
    span = begin if not until and begin[-1:] in "smhd" else ""
    intervals = query.get("n", "")
    count = int(intervals) if intervals.isdecimal() and len(intervals) < 6 else _INTERVALS
    return ChartView(chosen, start, end, span, not until, min(max(_FEWEST, count), _MOST))


def local_text(time: int, zone: dt.tzinfo) -> str:
    """Return a time for a field of a form, in a zone: ``2026-01-31T12:00:00``."""
    return (_EPOCH + dt.timedelta(microseconds=time)).astimezone(zone).strftime("%Y-%m-%dT%H:%M:%S")


def parse_time_in(text: str, zone: dt.tzinfo, now: dt.datetime) -> int:
    """Return a time or time span ago in microseconds since 1970. Raises ``ViewError``.

    ``zone``: that of a time without one.
    """
    try:
        given = dt.datetime.fromisoformat(text)
        time = given.replace(tzinfo=zone) if given.tzinfo is None else given
    except ValueError:
        try:
            time = parse_time(text, now)
        except ValueError as error:
            raise ViewError(str(error)) from None
    try:
        return min(max(0, _microseconds(time)), _LAST)
    except OverflowError:
        raise ViewError(f"{text!r} is not a time between 1970 and 9999") from None


def _microseconds(time: dt.datetime) -> int:
    return (time - _EPOCH) // dt.timedelta(microseconds=1)


def _iso(time: int) -> str:
    text = (_EPOCH + dt.timedelta(microseconds=time)).replace(tzinfo=None).isoformat(timespec="milliseconds")
    return f"{text}Z"
