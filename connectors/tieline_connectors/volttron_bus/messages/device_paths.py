"""Topics of the bus that name a device: their base and the order of their segments; pure."""

from __future__ import annotations

from typing import Literal, NamedTuple, cast, get_args

from tieline_connectors.volttron_bus.messages.prefixes import parse_prefix

Order = Literal["depth", "breadth", "both"]

KINDS = {"all": "ALL", "multi": "MULTI"}
"""Segments that the driver puts first or last in the topic of a message with many points."""

_NO_DEVICES = ("devices/actuators/",)


class DevicePath(NamedTuple):
    """A device's path, such as ``campus/building/ahu1``, and a point, ``all`` or ``multi`` in ``last``."""

    device: str
    last: str


class TopicBase(NamedTuple):
    """The first segments of topics of devices, and the order of the segments after them.

    - ``depth``: ``devices/campus/building/ahu1/all``.
    - ``breadth``: the path reversed. A point comes first, and on 10.x so does ``all``
      (``points/Zone/ahu1/building/campus``). On 2.x ``all`` and ``multi`` come last
      (``points/ahu1/building/campus/all``).
    - ``both`` under one base, which 10.x allows: a topic with ``all`` first is breadth, every other one
      depth, since a point cannot be distinguished from a campus.
    """

    name: str
    order: Order = "depth"

    @classmethod
    def parse(cls, text: str) -> TopicBase:
        """Return the base in a text such as ``points=breadth``. Raises ``ValueError``."""
        name, _, order = (part.strip() for part in text.partition("="))
        if not name.strip("/") or order not in get_args(Order):
            raise ValueError(f"{text!r} names no order; write base={'|'.join(get_args(Order))}")
        return cls(parse_prefix(name.strip("/")), cast("Order", order))

    def device_path(self, topic: str) -> DevicePath | None:
        """Return the device that a topic below this base names, or ``None``."""
        if not topic.startswith(f"{self.name}/") or topic.startswith(_NO_DEVICES):
            return None
        path = topic[len(self.name) + 1 :]
        if self.order == "breadth" or (self.order == "both" and path.partition("/")[0] in KINDS):
            return _reversed(path)
        device, _, last = path.rpartition("/")
        return DevicePath(device, last) if device else None


BASES = (TopicBase("points", "breadth"), TopicBase("devices"))
"""The bases of both generations of VOLTTRON by default."""


def with_defaults(bases: tuple[TopicBase, ...]) -> tuple[TopicBase, ...]:
    """Return these bases and the defaults that they do not replace; a base within another one comes first."""
    by_name = {base.name: base for base in (*BASES, *bases)}
    return tuple(sorted(by_name.values(), key=lambda base: -len(base.name)))


def _reversed(path: str) -> DevicePath | None:
    segments = path.split("/")
    last = segments.pop(-1 if segments[-1] in KINDS else 0)
    device = "/".join(reversed(segments))
    return DevicePath(device, last) if device else None
