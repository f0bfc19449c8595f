"""One point with its newest value; pure."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from tieline_connectors.points.live.staleness import limit_of
from tieline_connectors.points.questions import PointName

UNREAD = object()
"""The value of a point of which only the time is known."""
NOT_A_NUMBER, INFINITE = "not a number", "infinite"


class LivePoint(NamedTuple):
    """A point as pages show it. A change creates a new object; times are in microseconds."""

    name: PointName
    id: str
    topic: str
    units: str | None
    value: Any
    time: int
    gaps: tuple[int, ...]
    """The last gaps between the times of its values."""
    unseen: int
    """How much time the follower had skipped in total when this value came."""
    version: int
    is_stale: bool
    text: str
    """Name, topic and unit in lower case, for the search."""

    @property
    def limit(self) -> int:
        """The age from which its value is stale."""
        return limit_of(self.gaps)

    @property
    def type(self) -> str:
        """The type of its value: a tag to filter by."""
        return type_of(self.value)

    @property
    def problem(self) -> str:
        """What is abnormal about its value in words; empty if nothing is."""
        if self.is_stale:
            return "stale"
        return value_problem(self.value)

    @property
    def is_abnormal(self) -> bool:
        """Whether an operator should look at it."""
        return bool(self.problem)


def type_of(value: Any) -> str:
    """Return what a value is, in the words of a filter."""
    if value is UNREAD:
        return "unread"
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, (int, float)):
        return "number"
    return "text" if isinstance(value, str) else "other"


def value_problem(value: Any) -> str:
    """Return what is abnormal about a value in words; empty if nothing is."""
    if value is None:
        return "no value"
    if isinstance(value, float) and not math.isfinite(value):
        return NOT_A_NUMBER if math.isnan(value) else INFINITE
    return ""
