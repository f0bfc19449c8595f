"""What pages and ``tieline query`` ask a store of readings. MongoDB and the sink ``history`` answer alike.

Times are microseconds since 1970-01-01, UTC. A range includes its start and excludes its end.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol


class PointName(NamedTuple):
    """A point of a device on a platform."""

    platform: str
    device: str
    point: str


class KnownPoint(NamedTuple):
    """A point that a store has values of."""

    name: PointName
    topic: str
    """The topic of the bus under which the newest value was published."""
    units: str | None
    last_time: int
    """The time of its newest value, or of another one of the same day (UTC), if that costs the store less."""


class Bucket(NamedTuple):
    """The numeric values of one interval of a chart, reduced to what its pixels can show (M4).

    Drawing ``first``, ``minimum``, ``maximum`` and ``last`` looks the same as drawing every value (Jugel et
    al., "M4: A Visualization-Oriented Time Series Data Aggregation", VLDB 2014). A boolean counts as 0 or 1.
    """

    start: int
    first: float
    minimum: float
    maximum: float
    last: float


class Series(NamedTuple):
    """A point's values in a range, oldest first. An interval without a value has no bucket."""

    width: int
    """The length of an interval, which may differ from the one asked for; 0: each bucket is one value."""
    buckets: Sequence[Bucket]
    skipped: bool
    """Whether there are values that no chart can show: text, lists, objects, NaN and infinities."""


class Value(NamedTuple):
    """One value of a point, with its exact type."""

    time: int
    value: Any
    units: str | None


class Search(NamedTuple):
    """The conditions of a search; a document has to meet all of them."""

    topic: str | None = None
    pattern: str | None = None
    """A regular expression that matches a part of the topic."""
    device: str | None = None
    since: int | None = None
    until: int | None = None
    history: str | None = None
    """``from-cloud``: commands; ``to-cloud``: their results."""
    command: str | None = None
    """A command's id; its results match, too."""

    def problem(self) -> str:
        """Return what is wrong with the pattern; empty if nothing is."""
        try:
            re.compile(self.pattern or "")
        except re.error as error:
            return f"the pattern {self.pattern!r} is not a regular expression: {error}"
        return ""


class StoreUnavailableError(Exception):
    """The store does not answer at the moment. The message says which one, and why."""


class ReadingStore(Protocol):
    """Answers questions about stored readings. Safe for many threads; every call may block for seconds.

    Every method raises ``StoreUnavailableError``. No call takes longer than the store's time limit.
    """

    @property
    def name(self) -> str:
        """The store in words, without secrets: ``MongoDB at localhost:27017, tieline.readings``."""

    def points(self) -> Sequence[KnownPoint]:
        """Return every point of which the store has a value, in no particular order."""

    def series(self, point: PointName, start: int, end: int, intervals: int) -> Series:
        """Return what a chart of about ``intervals`` intervals shows of a point.

        The store reduces the values, not the caller. The answer has at most ``2 * intervals + 2`` buckets.
        """

    def values(self, point: PointName, start: int, end: int, limit: int) -> Sequence[Value]:
        """Return up to ``limit`` values of a point, newest first."""

    def export(self, point: PointName, start: int, end: int) -> Iterator[Value]:
        """Yield all values of a point, oldest first, without holding them in memory."""

    def search(self, search: Search, limit: int, before: int | None = None) -> Sequence[dict[str, Any]]:
        """Return up to ``limit`` stored documents, newest first; ``before``: older than this time only.

        A document has at least ``topic``, ``time`` (microseconds) and what the store keeps besides.
        """

    def close(self) -> None:
        """Release all connections and files."""
