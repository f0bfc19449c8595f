"""The values in a reading or a data log, point by point; pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from tieline_connectors.mongo.documents.values import from_json


class PointValue(NamedTuple):
    """One value of one point. ``key`` tells it from all others of its record; ``time`` in microseconds."""

    key: str
    point: str
    value: Any
    units: str | None
    time: int
    time_source: str


def each(given: Mapping[str, Any]) -> Iterator[PointValue]:
    """Every value of a ``volttron.DeviceReading`` or ``.DataLog``; none of a ``.BusMessage``.

    Raises ``KeyError``, ``TypeError`` or ``AttributeError`` for anything else.
    """
    if "readings" in given:
        for number, logged in enumerate(given["readings"]):  # a point may be there many times
            yield PointValue(
                f"{number}/{logged['point']}",
                logged["point"],
                _plain(logged["value"]),
                logged["units"],
                logged["time"],
                logged["time_source"],
            )
    elif "body" not in given:
        told = units(given["metadata"])
        time, source = given["time"], given["time_source"]
        for name, value in given["points"].items():
            yield PointValue(name, name, _plain(value), told.get(name), time, source)


def values(points: Mapping[str, Any]) -> dict[str, Any]:
    """Each point's value, JSON text read."""
    if dict not in set(map(type, points.values())):  # the usual case costs no copy
        return dict(points)
    return {name: _plain(value) for name, value in points.items()}


def units(metadata: Mapping[str, Any]) -> dict[str, str]:
    """The units of those points that have some."""
    told = {name: entry.get("units") for name, entry in metadata.items()}
    if None not in told.values():
        return told
    every = {name: unit or _unit_in(metadata[name].get("json")) for name, unit in told.items()}
    return {name: unit for name, unit in every.items() if unit is not None}


def _plain(value: Any) -> Any:
    return from_json(value["json"]) if type(value) is dict else value


def _unit_in(text: str | None) -> str | None:
    entry = from_json(text) if text else None
    unit = entry.get("units") if isinstance(entry, dict) else None
    return unit if isinstance(unit, str) else None
