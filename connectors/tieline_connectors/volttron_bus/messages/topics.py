"""Topics of the bus that name a device: under which base they lie, and in which order; pure."""

from __future__ import annotations

from typing import Literal, NamedTuple, cast, get_args

from tieline_connectors.volttron_bus.messages.prefixes import parse_prefix

Order = Literal["depth", "breadth", "both"]

KINDS = {"all": "ALL", "multi": "MULTI"}
"""What the driver puts at an end of a topic whose message holds many points."""

_NO_DEVICES = ("devices/actuators/",)


class DevicePath(NamedTuple):
    """``device``: its path, such as ``campus/building/ahu1``; ``last``: a point, ``all`` or ``multi``."""

    device: str
    last: str


class TopicBase(NamedTuple):
    """Where topics of devices begin, and the order of what follows.

    - ``depth``: ``devices/campus/building/ahu1/all``.
    - ``breadth``: the path reversed. A point and, on 10.x, ``all`` stand in front
      (``points/Zone/ahu1/building/campus``), on 2.x ``all`` and ``multi`` behind
      (``points/ahu1/building/campus/all``).
    - ``both`` under one base, as 10.x can: ``all`` in front is breadth, everything else depth, since
      nothing tells a point in front from a campus.
    """

    name: str
    order: Order = "depth"

    @classmethod
    def parse(cls, text: str) -> TopicBase:
        """From ``points=breadth``. Raises ``ValueError``."""
        name, _, order = (part.strip() for part in text.partition("="))
        if not name.strip("/") or order not in get_args(Order):
            raise ValueError(f"{text!r} names no order; write base={'|'.join(get_args(Order))}")
        return cls(parse_prefix(name.strip("/")), cast("Order", order))

    def place(self, topic: str) -> DevicePath | None:
        """The device that a topic names; none if it does not lie here or names none."""
        if not topic.startswith(f"{self.name}/") or topic.startswith(_NO_DEVICES):
            return None
        path = topic[len(self.name) + 1 :]
        if self.order == "breadth" or (self.order == "both" and path.partition("/")[0] in KINDS):
            return _reversed(path)
        device, _, last = path.rpartition("/")
        return DevicePath(device, last) if device else None


BASES = (TopicBase("points", "breadth"), TopicBase("devices"))
"""What both generations of VOLTTRON do by themselves."""


def with_defaults(bases: tuple[TopicBase, ...]) -> tuple[TopicBase, ...]:
    """These and those of ``BASES`` that they do not name; a base within another one comes first."""
    every = {base.name: base for base in (*BASES, *bases)}
    return tuple(sorted(every.values(), key=lambda base: -len(base.name)))


def _reversed(path: str) -> DevicePath | None:
    segments = path.split("/")
    last = segments.pop(-1 if segments[-1] in KINDS else 0)
    device = "/".join(reversed(segments))
    return DevicePath(device, last) if device else None
