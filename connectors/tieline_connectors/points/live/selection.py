"""Which points a page shows, in which order; pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

from tieline_connectors.points.live.filters import Predicate
from tieline_connectors.points.live.point import LivePoint
from tieline_connectors.points.live.tree import Node, Place, branches

PAGE = 100
_MAX_TAGS = 200


class Selection(NamedTuple):
    """The conditions of a page; a point has to meet all of them."""

    place: Place = Place()
    words: str = ""
    """Every word occurs in the name, topic or unit, without regard to case."""
    unit: str | None = None
    type: str = ""
    predicate: Predicate | None = None
    only: Collection[str] | None = None
    """Only the points with these ids."""
    page: int = 1


class Selected(NamedTuple):
    """One page of points, and what leads to the others."""

    rows: Sequence[LivePoint]
    matching: int
    abnormal: int
    page: int
    pages: int
    nodes: Sequence[Node]
    units: Sequence[str]
    types: Sequence[str]


def select(selection: Selection, points: Iterable[LivePoint], now: int) -> Selected:
    """Return the page of points that a selection describes: abnormal ones first, then by name.

    ``now`` is in microseconds. Units and types are those of all points at the place.
    """
    inside = [point for point in points if selection.place.contains(point)]
    words = selection.words.lower().split()
    matching = [
        point
        for point in inside
        if (selection.only is None or point.id in selection.only)
        and all(word in point.text for word in words)
        and (selection.unit is None or (point.units or "") == selection.unit)
        and (not selection.type or point.type == selection.type)
        and (selection.predicate is None or selection.predicate(point, now))
    ]
    matching.sort(key=_order)
    pages = max(1, -(-len(matching) // PAGE))
    page = min(max(1, selection.page), pages)
    units = Counter(point.units or "" for point in inside)
    return Selected(
        matching[(page - 1) * PAGE : page * PAGE],
        len(matching),
        sum(point.is_abnormal for point in matching),
        page,
        pages,
        branches(selection.place, matching),
        sorted(unit for unit, _ in units.most_common(_MAX_TAGS)),
        sorted({point.type for point in inside}),
    )


def _order(point: LivePoint) -> tuple[bool, tuple[str, ...]]:
    return not point.is_abnormal, point.name
