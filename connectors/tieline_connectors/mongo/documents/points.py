"""Returns the values in a reading or a data log as fields of documents; pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tieline_connectors.mongo.documents.values import from_json
from tieline_connectors.points import values as point_values
from tieline_connectors.points.values import PointValue


def each_value(value_map: Mapping[str, Any]) -> Iterator[PointValue]:
    """Yield every value of a reading or a data log, with JSON text parsed.

    Raises as ``tieline_connectors.points.values.each_value`` does.
    """
    for item in point_values.each_value(value_map):
        yield item._replace(value=_plain(item.value)) if type(item.value) is dict else item


def values(points: Mapping[str, Any]) -> dict[str, Any]:
    """Return each point's value, with JSON text parsed."""
    if dict not in set(map(type, points.values())):  # usual, and needs no copy
        return dict(points)
    return {name: _plain(value) for name, value in points.items()}


def _plain(value: Any) -> Any:
    return from_json(value["json"]) if type(value) is dict else value
