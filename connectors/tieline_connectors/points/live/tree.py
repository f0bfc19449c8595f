"""The tree of platforms and devices, one level at a time; pure.

A device's path has segments: ``campus/building/ahu1``. A node is a platform, or the beginning of such a path.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from tieline_connectors.points.live.point import LivePoint


class Place(NamedTuple):
    """A node of the tree; without a platform: its root. ``device`` is a whole path or its beginning."""

    platform: str | None = None
    device: str = ""

    def contains(self, point: LivePoint) -> bool:
        """Return whether a point is at this node or below it."""
        if self.platform is None:
            return True
        if point.name.platform != self.platform:
            return False
        device = point.name.device
        return not self.device or device == self.device or device.startswith(f"{self.device}/")

    def ancestors(self) -> Sequence[Place]:
        """Return the nodes from the root to this one, both included."""
        if self.platform is None:
            return [self]
        segments = self.device.split("/") if self.device else []
        places = (Place(self.platform, "/".join(segments[:end])) for end in range(len(segments) + 1))
        return list(dict.fromkeys([Place(), *places]))  # a path that begins with / has an empty segment

    def label_below(self, place: Place) -> str:
        """Return its name as seen from a place above it."""
        if place.platform is None:
            return f"{self.platform}/{self.device}" if self.device else str(self.platform)
        return self.device[len(place.device) + 1 :] if place.device else self.device

    @property
    def label(self) -> str:
        """The last part of its name, for the links to its ancestors."""
        if self.platform is None:
            return "All points"
        return self.device.rpartition("/")[2] if self.device else self.platform


class Node(NamedTuple):
    """A node with the number of points below it."""

    place: Place
    points: int
    abnormal: int


def branches(place: Place, points: Sequence[LivePoint]) -> list[Node]:
    """Return the nodes below a place where the tree first branches: a lone node makes way for those below.

    ``points`` are those that the place contains.
    """
    nodes = children(place, points)
    while len(nodes) == 1:
        below = children(nodes[0].place, points)
        if sum(node.points for node in below) != nodes[0].points or nodes[0].points != len(points):
            break
        nodes = below
    return nodes


def children(place: Place, points: Iterable[LivePoint]) -> list[Node]:
    """Return the nodes directly below a place, by name. ``points`` are those that it contains."""
    counts: dict[Place, list[int]] = {}
    depth = len(place.device) + 1
    for point in points:
        if place.platform is None:
            child = Place(point.name.platform)
        else:
            device = point.name.device
            if len(device) <= len(place.device) or not device:
                continue  # the point is at this node itself
            end = device.find("/", depth)
            child = Place(place.platform, device if end < 0 else device[:end])
        count = counts.setdefault(child, [0, 0])
        count[0] += 1
        count[1] += point.is_abnormal
    return [Node(child, *counts[child]) for child in sorted(counts, key=lambda each: each.label.lower())]
