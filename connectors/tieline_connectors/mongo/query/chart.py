"""What a chart of a point reads: which rollups, which documents, and how it becomes buckets; pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from tieline_connectors.mongo.documents.layouts import META_FIELD
from tieline_connectors.mongo.documents.rollups import HOURS, LEVELS, MINUTES, Interval, Level, document_id
from tieline_connectors.mongo.documents.values import to_date
from tieline_connectors.points.questions import Bucket, PointName

_DOUBLES = 1.7976931348623157e308


class Part(NamedTuple):
    """A part of a range. ``level`` says which rollups it has; ``None``: the documents themselves."""

    level: Level | None
    start: int
    end: int


class ChartPlan(NamedTuple):
    """The width of a chart's buckets, the coarsest level that it reads, and the parts of its range."""

    width: int
    level: Level | None
    parts: tuple[Part, ...]

    def reads(self, level: Level, start: int) -> bool:
        """Return whether a part consists of this level and contains the interval that begins at ``start``."""
        return any(part.level == level and part.start <= start < part.end for part in self.parts)

    def documents(self, key: str) -> list[str]:
        """Return the ids of all rollup documents of a point that the parts need."""
        return [
            document_id(key, part.level, time)
            for part in self.parts
            if part.level is not None
            for time in range(part.start // part.level.span * part.level.span, part.end, part.level.span)
        ]


def plan(start: int, end: int, intervals: int, with_rollups: bool) -> ChartPlan:
    """Return how to read a range for a chart of about so many intervals.

    A level is used if its intervals are at most twice as long as an interval of the chart. The minutes and
    documents at both edges make the edges exact.
    """
    wanted = max(1, -(-(end - start) // max(1, intervals)))
    for level in reversed(LEVELS) if with_rollups else ():
        if wanted * 2 >= level.width:
            width = max(1, wanted // level.width) * level.width
            return ChartPlan(width, level, parts(start, end, level))
    return ChartPlan(wanted, None, parts(start, end, None))


def parts(start: int, end: int, level: Level | None) -> tuple[Part, ...]:
    """Return the parts of a range: this level, then finer ones and documents at its edges."""
    return tuple(_parts(start, end, level))


def _parts(start: int, end: int, level: Level | None) -> Iterator[Part]:
    if start >= end:
        return
    if level is None:
        yield Part(None, start, end)
        return
    finer = MINUTES if level == HOURS else None
    first, last = -(-start // level.width) * level.width, end // level.width * level.width
    if first >= last:
        yield from _parts(start, end, finer)
        return
    yield from _parts(start, first, finer)
    yield Part(level, first, last)
    yield from _parts(last, end, finer)


class Reduction:
    """Combines intervals to the buckets of a chart."""

    def __init__(self, start: int, width: int) -> None:
        self._start = start
        self._width = width
        self._intervals: dict[int, Interval] = {}

    def add(self, time: int, interval: Interval) -> None:
        """Add an interval, which must not be longer than a bucket; ``time`` is its start."""
        self._intervals.setdefault(time // self._width, Interval()).combine(interval)

    @property
    def skipped(self) -> bool:
        """Whether there are values that no chart can show."""
        return any(interval.other for interval in self._intervals.values())

    def buckets(self) -> list[Bucket]:
        """Return the buckets that have a number, oldest first; the first one begins with the range."""
        return [
            bucket
            for number in sorted(self._intervals)
            for bucket in _bucket(max(self._start, number * self._width), self._intervals[number])
        ]


def _bucket(start: int, interval: Interval) -> Iterator[Bucket]:
    if interval.first is not None and interval.last is not None:
        yield Bucket(start, interval.first[1], interval.minimum, interval.maximum, interval.last[1])


def within(start: int | None, end: int | None) -> dict[str, Any]:
    """Return the condition for documents of a range. The indexed field is the date, in milliseconds."""
    dates: dict[str, Any] = {}
    times: dict[str, Any] = {}
    if start is not None:
        dates["$gte"], times["$gte"] = to_date(start), start
    if end is not None:
        dates["$lt"], times["$lt"] = to_date(-(-end // 1000) * 1000), end
    return {"time": dates, "time_us": times} if times else {}


def match_stages(layout: str, point: PointName, start: int, end: int) -> list[dict[str, Any]]:
    """Return the first stages of a pipeline: a point's documents of a range.

    MongoDB merges both stages. The embedded server uses an index for the first alone, and only if the index
    begins with its fields.
    """
    limits = within(start, end)
    indexed: dict[str, Any] = {"device": point.device}
    exact: dict[str, Any] = {"platform": point.platform}
    if layout == "timeseries":
        indexed, exact = {META_FIELD: point._asdict()}, {}
    elif layout == "point":
        indexed["point"] = point.point
    return [
        {"$match": indexed | {"time": limits["time"]}},
        {"$match": exact | {"time_us": limits["time_us"]}},
    ]


def value_of(layout: str, point: PointName) -> dict[str, Any]:
    """Return the fields ``t``, ``v`` and ``u`` of a projection: time, value and units of the point."""
    if layout != "reading":
        return {"_id": 0, "t": "$time_us", "v": "$value", "u": "$units"}
    return {"_id": 0, "t": "$time_us", "v": _field("points", point.point), "u": _field("units", point.point)}


def _field(of: str, name: str) -> Any:
    if name and "." not in name and not name.startswith("$") and "\0" not in name:
        return f"${of}.{name}"
    return {"$getField": {"field": {"$literal": name}, "input": f"${of}"}}


def reduction_stages(width: int) -> list[dict[str, Any]]:
    """Return the stages that reduce ``t`` and ``v`` to intervals: ``_id`` is the interval's number."""
    is_number = {
        "$and": [{"$isNumber": "$v"}, {"$gte": ["$v", -_DOUBLES]}, {"$lte": ["$v", _DOUBLES]}]  # NaN is not
    }
    number = {
        "$switch": {
            "branches": [
                {"case": {"$eq": [{"$type": "$v"}, "bool"]}, "then": {"$cond": ["$v", 1.0, 0.0]}},
                {"case": is_number, "then": {"$toDouble": "$v"}},
            ],
            "default": None,
        }
    }
    timed = {"$cond": [{"$eq": ["$n", None]}, None, {"t": "$t", "v": "$n"}]}
    return [
        {"$match": {"v": {"$ne": None}}},
        {"$project": {"t": 1, "n": number}},
        {
            "$group": {
                "_id": {"$floor": {"$divide": ["$t", width]}},
                "n": {"$min": "$n"},
                "x": {"$max": "$n"},
                "f": {"$min": timed},
                "l": {"$max": timed},
                "o": {"$max": {"$eq": ["$n", None]}},
            }
        },
    ]


def reduced(documents: Iterable[Mapping[str, Any]], width: int) -> Iterator[tuple[int, Interval]]:
    """Yield the intervals, with their start, of the answer to ``reduction_stages``."""
    for document in documents:
        interval = Interval(other=bool(document["o"]))
        if document["n"] is not None:
            first, last = ((document[name]["t"], document[name]["v"]) for name in ("f", "l"))
            interval = Interval(document["n"] + 0.0, document["x"] + 0.0, first, last, interval.other)
        yield int(document["_id"]) * width, interval
