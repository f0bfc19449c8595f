"""Rollups: what a chart shows of the values of each minute and hour of a point; pure.

A rollup is the smallest and largest value and the first and last one with their times. Combining two rollups
takes minima and maxima, so that neither the order of values nor their repetition changes the result.

The documents in ``<collection>.rollup``:

- minutes: ``{_id: "<point key>:m:<number>", start, s: {"<minute>": interval}}``, ten minutes in a document
- hours: ``{_id: "<point key>:h:<number>", start, s: {"<hour>": interval}}``, a day in a document

An interval is ``{n: minimum, x: maximum, f: {t, v}, l: {t, v}, o: true}`` with the first and the last value.
It has ``o`` if there is a value that no chart can show.

``<collection>.points`` has a document for each point, and one with the id ``state``:
``{_id: "<point key>", platform, device, point, oldest, newest: {t, topic, units}}``. ``oldest`` is the start
of a day. ``newest`` is updated with the first value of every five minutes, so that the list of all points
costs one read: the newest value is in the same five minutes. Sinks of earlier versions updated it once a day.

Embedded documents compare field by field in MongoDB, so ``$min`` on ``f`` keeps the earliest value, and the
smallest one of several with the same time. All ids of a range can be computed, and need no other index.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from tieline_connectors.mongo.documents.samples import Sample, samples, to_number
from tieline_connectors.mongo.documents.values import to_date
from tieline_connectors.points.questions import PointName

ROLLUPS, POINTS = ".rollup", ".points"
"""What follows the name of the collection."""
STATE = "state"

MINUTE_US = 60_000_000
HOUR_US = 60 * MINUTE_US
DAY_US = 24 * HOUR_US
_NEWEST_US = 5 * MINUTE_US


class Level(NamedTuple):
    """A length of intervals in microseconds, and how many of them one document has."""

    letter: str
    width: int
    slots: int

    @property
    def span(self) -> int:
        """The microseconds in one document."""
        return self.width * self.slots


MINUTES = Level("m", MINUTE_US, 10)
HOURS = Level("h", HOUR_US, 24)
LEVELS = (MINUTES, HOURS)

TimedValue = tuple[int, float]


@dataclass(slots=True)
class Interval:
    """The values of one interval. ``first`` is ``None`` if none of them is a number."""

    minimum: float = float("inf")
    maximum: float = float("-inf")
    first: TimedValue | None = None
    last: TimedValue | None = None
    other: bool = False
    newest: int = -(2**63)
    """The time of the newest value, also of a null, where it is known."""

    def add(self, time: int, value: Any) -> None:
        """Add a stored value. A null is not a value."""
        if value is None:
            return
        number = to_number(value)
        if number is None:
            self.other = True
            return
        timed = (time, number)
        if self.first is None or self.last is None:
            self.minimum = self.maximum = number
            self.first = self.last = timed
            return
        if number < self.minimum:
            self.minimum = number
        if number > self.maximum:
            self.maximum = number
        if timed < self.first:
            self.first = timed
        if timed > self.last:
            self.last = timed

    def combine(self, other: Interval) -> None:
        """Add all values of another interval."""
        self.other = self.other or other.other
        self.newest = max(self.newest, other.newest)
        if other.first is None or other.last is None:
            return
        self.minimum = min(self.minimum, other.minimum)
        self.maximum = max(self.maximum, other.maximum)
        self.first = other.first if self.first is None else min(self.first, other.first)
        self.last = other.last if self.last is None else max(self.last, other.last)


class Update(NamedTuple):
    """An upsert of one document. Repeating it changes nothing."""

    id: str
    changes: Mapping[str, Mapping[str, Any]]


def point_key(name: PointName) -> str:
    """Return the id of a point, which begins the ids of its rollups."""
    text = json.dumps(name, ensure_ascii=True).encode()
    return hashlib.blake2b(text, digest_size=16).hexdigest()


def document_id(key: str, level: Level, time: int) -> str:
    """Return the id of the document that contains a time."""
    return f"{key}:{level.letter}:{time // level.span}"


def intervals(document: Mapping[str, Any]) -> Iterator[tuple[Level, int, Interval]]:
    """Yield the intervals of a rollup document with their level and start."""
    _, letter, number = document["_id"].split(":")
    level = HOURS if letter == HOURS.letter else MINUTES
    start = int(number) * level.span
    for slot, stored in document.get("s", {}).items():
        yield level, start + int(slot) * level.width, _interval(stored)


def _interval(stored: Mapping[str, Any]) -> Interval:
    if "f" not in stored:
        return Interval(other=bool(stored.get("o")))
    first, last = ((stored[name]["t"], stored[name]["v"]) for name in ("f", "l"))
    return Interval(stored["n"], stored["x"], first, last, bool(stored.get("o")))


@dataclass(slots=True)
class _Known:
    """What was last written about a point, and the time of its newest value."""

    oldest: int
    newest: int
    topic: str
    units: str | None


class RollupBuffer:
    """Collects the rollups of documents until they are written. One thread.

    Everything that was added is in ``points`` and ``intervals`` until ``clear``.
    """

    def __init__(self) -> None:
        self._minutes: dict[PointName, dict[int, Interval]] = {}
        self._points: dict[PointName, Update] = {}
        self._known: dict[PointName, _Known] = {}
        self.size = 0
        """The number of intervals of a minute."""

    def add(self, documents: Iterable[Mapping[str, Any]]) -> None:
        """Add the values of stored documents."""
        for document in documents:
            for sample in samples(document):
                self._add(sample)

    def _add(self, sample: Sample) -> None:
        name, time, value, units, topic = sample
        minutes = self._minutes.get(name)
        if minutes is None:
            minutes = self._minutes[name] = {}
        minute = time // MINUTE_US
        interval = minutes.get(minute)
        if interval is None:
            interval = minutes[minute] = Interval()
            self.size += 1
        interval.add(time, value)
        interval.newest = max(interval.newest, time)
        known = self._known.get(name)
        if (
            known is None
            or time < known.oldest
            or time // _NEWEST_US > known.newest // _NEWEST_US
            or (time >= known.newest and (topic != known.topic or units != known.units))
        ):
            self._know(sample, known)
        elif time > known.newest:
            known.newest = time

    def _know(self, sample: Sample, known: _Known | None) -> None:
        name, time, _, units, topic = sample
        oldest = time // DAY_US * DAY_US
        if known is None:
            known = self._known[name] = _Known(oldest, time, topic, units)
        known.oldest = min(known.oldest, oldest)
        if time >= known.newest:
            known.newest, known.topic, known.units = time, topic, units
        self._points[name] = Update(
            point_key(name),
            {
                "$setOnInsert": name._asdict(),
                "$min": {"oldest": known.oldest},
                "$max": {"newest": {"t": known.newest, "topic": known.topic, "units": known.units}},
            },
        )

    def points(self) -> list[Update]:
        """Return the upserts of points that are new, or have a new topic, unit, first day or newest time."""
        return list(self._points.values())

    def intervals(self) -> list[Update]:
        """Return the upserts of all minutes and hours that were added."""
        found: list[Update] = []
        for name, minutes in self._minutes.items():
            key = point_key(name)
            hours: dict[int, Interval] = {}
            for minute, interval in minutes.items():
                hours.setdefault(minute // 60, Interval()).combine(interval)
            found += _updates(key, MINUTES, minutes)
            found += _updates(key, HOURS, hours)
        return found

    def clear(self) -> None:
        """Drop what was added, after it is written. What is known of points stays."""
        self._minutes.clear()
        self._points.clear()
        self.size = 0


def _updates(key: str, level: Level, of_interval: Mapping[int, Interval]) -> list[Update]:
    documents: dict[str, Update] = {}
    for number, interval in of_interval.items():
        if level == MINUTES and interval.first is None and not interval.other:
            continue  # only nulls
        time = number * level.width
        start = time // level.span * level.span
        update = documents.setdefault(
            document_id(key, level, time),
            Update(
                document_id(key, level, time),
                {"$setOnInsert": {"start": to_date(start)}, "$min": {}, "$max": {}},
            ),
        )
        minima: Any = update.changes["$min"]
        maxima: Any = update.changes["$max"]
        path = f"s.{number % level.slots}"
        if interval.first is not None and interval.last is not None:
            minima |= {f"{path}.n": interval.minimum, f"{path}.f": _timed(interval.first)}
            maxima |= {f"{path}.x": interval.maximum, f"{path}.l": _timed(interval.last)}
        if interval.other:
            maxima[f"{path}.o"] = True
        if level == HOURS:
            maxima["t"] = max(interval.newest, maxima.get("t", interval.newest))
    return [
        Update(update.id, {operator: fields for operator, fields in update.changes.items() if fields})
        for update in documents.values()
    ]


def _timed(value: TimedValue) -> dict[str, Any]:
    return {"t": value[0], "v": value[1]}
