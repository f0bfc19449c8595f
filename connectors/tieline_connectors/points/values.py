"""Returns the values in a reading or a data log, point by point; pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from tieline.api import parse_json

KINDS = ("ALL", "MULTI", "POINT", "OTHER")
"""The kinds of ``volttron.DeviceReading``."""


class PointValue(NamedTuple):
    """One value of one point. ``key`` is unique within its record; ``time`` is in microseconds.

    ``value`` is as in the record: a scalar, or ``{"json": text}`` for anything else.
    """

    key: str
    point: str
    value: Any
    units: str | None
    time: int
    time_source: str


def each_value(value_map: Mapping[str, Any]) -> Iterator[PointValue]:
    """Yield every value of a ``volttron.DeviceReading`` or ``.DataLog``; none of a ``.BusMessage``.

    Raises ``KeyError``, ``TypeError`` or ``AttributeError`` for anything else.
    """
    if "readings" in value_map:
        for number, logged in enumerate(value_map["readings"]):  # a point may occur many times
            yield PointValue(
                f"{number}/{logged['point']}",
                logged["point"],
                logged["value"],
                logged["units"],
                logged["time"],
                logged["time_source"],
            )
    elif "body" not in value_map:
        units_by_point = units(value_map["metadata"])
        time, source = value_map["time"], value_map["time_source"]
        for name, value in value_map["points"].items():
            yield PointValue(name, name, value, units_by_point.get(name), time, source)


def units(metadata: Mapping[str, Any]) -> dict[str, str]:
    """Return the units of the points that have some. Raises ``ValueError`` for text that is not JSON."""
    by_point = {name: entry.get("units") for name, entry in metadata.items()}
    if None not in by_point.values():
        return by_point
    with_json = {name: unit or _unit_in(metadata[name].get("json")) for name, unit in by_point.items()}
    return {name: unit for name, unit in with_json.items() if unit is not None}


def _unit_in(text: str | None) -> str | None:
    try:
        entry = parse_json(text) if text else None
    except RecursionError:
        return None
    unit = entry.get("units") if isinstance(entry, dict) else None
    return unit if isinstance(unit, str) else None
