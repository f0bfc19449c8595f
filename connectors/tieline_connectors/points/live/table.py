"""The newest value of every point. One thread changes the table, any thread reads it."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from tieline_connectors.points.live.point import UNREAD, LivePoint
from tieline_connectors.points.live.staleness import limit_of, with_gap
from tieline_connectors.points.names import point_id
from tieline_connectors.points.questions import KnownPoint, PointName

MAX_POINTS = 200_000
"""Further points are counted and not kept: a bus can publish any number of names."""
_RECENT = 240
"""Values that are kept for an open chart between two updates of its page."""


class NewValue(NamedTuple):
    """One value of a point. ``time`` is in microseconds."""

    name: PointName
    topic: str
    units: str | None
    value: Any
    time: int


class RecentValue(NamedTuple):
    """A value of a point on an open chart, with the table's version at which it came."""

    version: int
    time: int
    value: Any


class LiveTable:
    """Holds one ``LivePoint`` for each point. ``version`` increases with every change."""

    def __init__(self) -> None:
        self._points: dict[PointName, LivePoint] = {}
        self._by_id: dict[str, PointName] = {}
        self._recent: dict[str, deque[RecentValue]] = {}
        self._lock = threading.Lock()
        self.version = 0
        self.grown_at = 0
        """The version at which a point came last that was not known before."""
        self.unseen = 0
        """How much time the follower has skipped in total, in microseconds."""
        self.dropped = 0
        """Values of points beyond ``MAX_POINTS``."""

    def __len__(self) -> int:
        return len(self._points)

    def snapshot(self) -> Sequence[LivePoint]:
        """Return every point, in no particular order."""
        with self._lock:
            return list(self._points.values())

    def find(self, point: str) -> LivePoint | None:
        """Return the point with this id."""
        name = self._by_id.get(point)
        return None if name is None else self._points.get(name)

    def get(self, name: PointName) -> LivePoint | None:
        """Return a point by its name."""
        return self._points.get(name)

    def seed(self, known: Iterable[KnownPoint]) -> None:
        """Add the points that a store knows, with the time of their newest value and no value yet."""
        with self._changing() as version:
            for each in known:
                found = self._points.get(each.name)
                if found is None or each.last_time > found.time:
                    new = NewValue(each.name, each.topic, each.units, UNREAD, each.last_time)
                    self._put(new, found, version)

    def set_stored_value(self, name: PointName, time: int, value: Any) -> None:
        """Set the newest stored value of a point that has none yet, unless a newer one has come."""
        with self._changing() as version:
            found = self._points.get(name)
            if found is not None and found.value is UNREAD and found.time <= time:
                self._points[name] = found._replace(value=value, time=time, version=version)

    def update(self, values: Iterable[NewValue]) -> None:
        """Take new values. One that is older than the point's newest one changes nothing."""
        with self._changing() as version:
            for each in values:
                found = self._points.get(each.name)
                if (
                    found is None
                    or each.time > found.time
                    or (each.time == found.time and found.value is UNREAD)
                ):
                    self._put(each, found, version)

    def _put(self, new: NewValue, found: LivePoint | None, version: int) -> None:
        if found is None:
            if len(self._points) >= MAX_POINTS:
                self.dropped += 1
                return
            point = point_id(new.name)
            gaps: tuple[int, ...] = ()
            self._by_id[point] = new.name
            self.grown_at = version
        else:
            point = found.id
            gaps = with_gap(found.gaps, found.time, new.time) if new.value is not UNREAD else found.gaps
        units = new.units if new.units is not None or found is None else found.units
        if found is not None and found.topic == new.topic and found.units == units:
            text = found.text
        else:
            text = " ".join((*new.name, new.topic, units or "")).lower()
        self._points[new.name] = LivePoint(
            new.name,
            point,
            new.topic,
            units,
            new.value,
            new.time,
            gaps,
            self.unseen,
            version,
            is_stale=False,
            text=text,
        )
        recent = self._recent.get(point)
        if recent is not None and new.value is not UNREAD:
            recent.append(RecentValue(version, new.time, new.value))

    def judge(self, now: int) -> None:
        """Mark the points that have become stale, or are no longer. Time that was skipped does not count."""
        with self._changing() as version:
            changed = [
                point
                for point in self._points.values()
                if point.is_stale != (now - point.time - (self.unseen - point.unseen) > limit_of(point.gaps))
            ]
            for point in changed:
                self._points[point.name] = point._replace(is_stale=not point.is_stale, version=version)

    @contextmanager
    def _changing(self) -> Iterator[int]:
        """Yield the version of a change; readers see it when the change is complete."""
        with self._lock:
            yield self.version + 1
            self.version += 1

    def follow(self, points: Collection[str]) -> None:
        """Keep the recent values of these points, by id, and of no others. A point may be unknown yet."""
        with self._lock:
            self._recent = {point: self._recent.get(point, deque(maxlen=_RECENT)) for point in points}

    def recent(self, points: Iterable[str], since: int) -> Mapping[str, Sequence[RecentValue]]:
        """Return the values of followed points after a version, by id, oldest first."""
        with self._lock:
            found = {
                point: [each for each in self._recent.get(point, ()) if each.version > since]
                for point in points
            }
        return {point: values for point, values in found.items() if values}
