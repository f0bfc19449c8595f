"""Returns the values in stored documents of the layouts ``reading``, ``point`` and ``timeseries``; pure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from bson import Decimal128

from tieline_connectors.mongo.documents.layouts import META_FIELD
from tieline_connectors.mongo.documents.values import storable
from tieline_connectors.points.questions import PointName

_MAX_DIGITS = 10**34
"""Integers from here on are stored as text."""


class Sample(NamedTuple):
    """One value of a point in a document. ``time`` is in microseconds."""

    name: PointName
    time: int
    value: Any
    units: str | None
    topic: str


def samples(document: Mapping[str, Any]) -> Iterator[Sample]:
    """Yield the values in a document, with names as MongoDB contains them; none for other documents."""
    time, topic = document.get("time_us"), document.get("topic")
    if not isinstance(time, int) or not isinstance(topic, str):
        return
    series, points = document.get(META_FIELD, document), document.get("points")
    if not isinstance(series, Mapping):
        return
    platform, device, point = (series.get(name) for name in ("platform", "device", "point"))
    if not isinstance(platform, str) or not isinstance(device, str):
        return
    platform, device, topic = _stored(platform), _stored(device), _stored(topic)
    if isinstance(points, Mapping):
        if not all(map(_is_plain, points)):
            points = storable(points)
        units = document.get("units")
        by_point: Mapping[str, Any] = units if isinstance(units, Mapping) else {}
        for name, value in points.items():
            yield Sample(PointName(platform, device, name), time, value, _text(by_point.get(name)), topic)
    elif isinstance(point, str) and "value" in document:
        name = PointName(platform, device, _stored(point))
        yield Sample(name, time, document["value"], _text(document.get("units")), topic)


def to_number(value: Any) -> float | None:
    """Return what a chart shows of a value: a finite number, 0 or 1 of a boolean, else ``None``."""
    if isinstance(value, Decimal128):
        decimal = value.to_decimal()
        return to_number(float(decimal)) if decimal.is_finite() else None
    if isinstance(value, float):
        return value + 0.0 if math.isfinite(value) else None  # 0.0 for -0.0, which compares as equal
    if isinstance(value, int):
        return float(value) if -_MAX_DIGITS < value < _MAX_DIGITS else None
    return None


def _text(value: Any) -> str | None:
    return _stored(value) if isinstance(value, str) else None


@lru_cache(100_000)
def _stored(text: str) -> str:
    stored: str = storable(text)
    return stored


@lru_cache(100_000)
def _is_plain(name: str) -> bool:
    """Return whether a field's name is stored unchanged."""
    return "\0" not in name and _stored(name) == name


def restored(value: Any) -> Any:
    """Return a stored value as Python data: integers beyond 64 bits are integers again."""
    if isinstance(value, Decimal128):
        decimal = value.to_decimal()
        return int(decimal) if decimal.is_finite() and decimal == decimal.to_integral_value() else value
    if isinstance(value, Mapping):
        return {key: restored(item) for key, item in value.items()}
    if isinstance(value, list):
        return [restored(item) for item in value]
    return value
