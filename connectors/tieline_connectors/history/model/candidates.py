"""Converts a record to candidates for rows, and decides between candidates for one point and time; pure.

There is one row per point and time. Several records may have a value for it: a driver publishes a value both
alone and among all values of its device, and a later record may correct an earlier one. The value that was
received last is stored. This is a maximum, so that the result does not depend on the order of delivery and
a redelivery changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from tieline_connectors.history.model.intervals import MAX_TIME
from tieline_connectors.history.model.stored_values import Stored, is_storable, sort_key, to_stored
from tieline_connectors.points.questions import PointName
from tieline_connectors.points.values import each_value


class Publication(NamedTuple):
    """What the values of a publication have in common; a point has few of them."""

    topic: str
    units: str | None
    time_source: str
    sender: str


class Candidate(NamedTuple):
    """A value for the row of a point and time. ``delay``: from that time to its reception, in µs."""

    delay: int
    value: Stored
    publication: Publication

    def precedes(self, other: Candidate) -> bool:
        """Return whether ``other`` replaces this one.

        If both were received at the same time, the order is arbitrary but fixed.
        """
        if self.delay != other.delay:
            return self.delay < other.delay
        return self._tie_break() < other._tie_break()

    def has_value_of(self, other: Candidate) -> bool:
        """Return whether both have the same value of the same type."""
        mine, others = self.value, other.value
        return type(mine) is type(others) and sort_key(mine) == sort_key(others)

    def _tie_break(self) -> tuple[Any, ...]:
        return (sort_key(self.value), *((field is not None, field or "") for field in self.publication))


PointTime = tuple[PointName, int]


def candidates(value: Mapping[str, Any]) -> dict[PointTime, Candidate]:
    """Return the values of a reading or data log; empty for another message of the bus.

    If a data log has several values of one point and time, the last of them counts. Raises ``ValueError``
    for a value that does not fit.
    """
    try:
        received, platform, device = value["received"], value["platform"], value.get("device", "")
        topic, sender = value["topic"], value["sender"]
        found = {}
        for item in each_value(value):
            publication = Publication(topic, item.units, item.time_source, sender)
            _check_time(item.time)
            candidate = Candidate(received - item.time, to_stored(item.value), publication)
            found[PointName(platform, device, item.point), item.time] = candidate
        _check_time(received)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            "the sink history takes volttron.DeviceReading and .DataLog, and this value does not fit"
            f" ({type(error).__name__}: {error})"
        ) from None
    for text in _texts(found):
        if type(text) is not str or not is_storable(text):
            raise ValueError(f"a name or topic is not text that UTF-8 has: {text!r}")
    return found


def _texts(found: Mapping[PointTime, Candidate]) -> set[Any]:
    texts: set[Any] = set()
    for (name, _), candidate in found.items():
        texts.update(name)
        texts.update(candidate.publication)
    return texts - {None}


def _check_time(time: Any) -> None:
    if type(time) is not int or not -MAX_TIME < time < MAX_TIME:
        raise ValueError(f"{time!r} is not a time in microseconds")
