"""Which reading of each device was received last, and which gaps are open; pure.

A connection has a number, its session. The first reading of a device in a new session ends a gap that began
after the last one before it. Between the two, readings may be missing; within a session, none are.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

MAX_DEVICES = 10_000
"""How many devices are remembered; others are not filled."""
MAX_GAPS = 4
"""How many gaps a device has at most; older ones are merged, and what lies between them is fetched again."""
_FUTURE = 3_600_000_000
"""A reading this far in the future, in µs, says nothing about what was received."""
_ROOT, _ALL = "devices/", "/all"
_NO_DEVICES = "devices/actuators/"
_FORMS = ("PAIR", "LIST", "BARE")


class Anchor(NamedTuple):
    """A reading that was received from the bus: its time (µs since 1970, UTC), and the id of its record.

    The id is empty if only the time is known.
    """

    time: int
    id: str


@dataclass
class Gap:
    """The time between two readings of one device.

    ``position``: all readings up to this time are recovered. ``verified``: whether a reading that is rebuilt
    from the historian has the id that it had on the bus; ``None`` if that is not known yet.
    """

    start: Anchor
    end: Anchor
    position: int
    verified: bool | None = None

    @classmethod
    def between(cls, start: Anchor, end: Anchor) -> Gap:
        """Return a gap in which nothing is recovered; the reading at its start is fetched for comparison."""
        return cls(start, end, start.time - 1)


@dataclass
class Device:
    """What is known of one device. ``topic`` is that of the bus, ``form`` how its bodies are written."""

    topic: str
    form: str
    last: Anchor
    session: int = 0
    gaps: list[Gap] = field(default_factory=list)

    @property
    def path(self) -> str:
        """The device's path, as the historian names it."""
        return self.topic[len(_ROOT) : -len(_ALL)]


class Reception:
    """The devices of one platform. Not thread-safe."""

    def __init__(self, max_age: int) -> None:
        """``max_age``: how far back readings are fetched, in µs."""
        self.max_age = max_age
        self.ignored = 0
        """How many readings came from devices beyond ``MAX_DEVICES``."""
        self.opened = 0
        """How many gaps were opened."""
        self._devices: dict[str, Device] = {}

    def add(self, device: Device) -> None:
        """Add a device of an earlier run; its session is over."""
        if len(self._devices) < MAX_DEVICES:
            self._devices[device.topic] = device

    def receive(self, session: int, topic: str, form: str, reading: Anchor, now: int) -> Device | None:
        """Note a reading that the spool has; return its device, or ``None`` if it is not remembered.

        It opens a gap if it is the first one of its device in this session. ``now`` is in µs.
        """
        device = self._devices.get(topic)
        if reading.time > now + _FUTURE or not is_filled(topic) or form not in _FORMS:
            return None
        if device is None:
            if len(self._devices) >= MAX_DEVICES:
                self.ignored += 1
                return None
            device = self._devices[topic] = Device(topic, form, reading, session)
            return device
        if reading.time <= device.last.time:  # an agent that publishes old readings, or a repeat
            return None
        if device.session != session:
            self._open(device, reading, now)
            device.session = session
        device.last, device.form = reading, form
        return device

    def end_silence(self, session: int, since: int, now: int) -> list[Device]:
        """Open a gap for each device without a reading in this session, which began at ``since`` (µs)."""
        silent = [device for device in self._devices.values() if device.session != session]
        for device in silent:
            device.session = session
            if since > device.last.time:
                end = Anchor(since, "")
                self._open(device, end, now)
                device.last = end
        return silent

    def paths(self) -> list[str]:
        """Return the paths of all devices."""
        return [device.path for device in self._devices.values()]

    def fill(self, topic: str, start: int, position: int, verified: bool | None, end: int | None) -> Device:
        """Note how far the gap of this topic after ``start`` is filled; return its device.

        ``end``: where the gap is closed, ``None`` while it is not. A gap that has grown since stays open.
        """
        device = self._devices[topic]
        for gap in device.gaps:
            if gap.start.time == start:
                gap.position, gap.verified = max(gap.position, position), verified
                if gap.end.time == end:
                    device.gaps.remove(gap)
                break
        return device

    def gaps(self) -> Iterator[tuple[Device, Gap]]:
        """Return all open gaps, in the order in which their devices were first seen."""
        return ((device, gap) for device in self._devices.values() for gap in device.gaps)

    def _open(self, device: Device, end: Anchor, now: int) -> None:
        if end.time < now - self.max_age:
            return
        self.opened += 1
        device.gaps.append(Gap.between(device.last, end))
        if len(device.gaps) > MAX_GAPS:
            first, second = device.gaps[:2]
            first.end = second.end  # the same object: a thread may be filling it
            del device.gaps[1]


def is_filled(topic: str) -> bool:
    """Return whether a historian stores readings of this topic so that they can be rebuilt."""
    return (
        topic.startswith(_ROOT)
        and topic.endswith(_ALL)
        and not topic.startswith(_NO_DEVICES)
        and len(topic) > len(_ROOT) + len(_ALL)
    )


def form_of(body: Any) -> str:
    """Return how the points of a reading are written; empty for a body that cannot be rebuilt."""
    if type(body) is list and len(body) == 2 and type(body[0]) is type(body[1]) is dict and body[0]:
        return "PAIR"
    if type(body) is list and len(body) == 1 and type(body[0]) is dict and body[0]:
        return "LIST"
    return "BARE" if type(body) is dict and body else ""


def to_text(device: Device) -> str:
    """Return a device as a line of text."""
    gaps = [[*gap.start, *gap.end, gap.position, gap.verified] for gap in device.gaps]
    return json.dumps([device.topic, device.form, *device.last, gaps], separators=(",", ":"))


def parse_device(text: str) -> Device | None:
    """Return the device of a line, or ``None`` if the line is invalid."""
    try:
        topic, form, time, record_id, gaps = json.loads(text)
        device = Device(topic, form, _anchor(time, record_id))
        for start, start_id, end, end_id, position, verified in gaps[:MAX_GAPS]:
            if type(position) is not int or verified not in (True, False, None):
                return None
            device.gaps.append(Gap(_anchor(start, start_id), _anchor(end, end_id), position, verified))
    except (ValueError, TypeError, RecursionError):
        return None
    return device if type(topic) is str and is_filled(topic) and form in _FORMS else None


def _anchor(time: Any, record_id: Any) -> Anchor:
    if type(time) is not int or type(record_id) is not str:
        raise ValueError
    return Anchor(time, record_id)
