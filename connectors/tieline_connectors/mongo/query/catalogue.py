"""Finds the points of a collection; pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tieline_connectors.mongo.documents.layouts import META_FIELD
from tieline_connectors.points.questions import KnownPoint, PointName

LAYOUTS_WITH_POINTS = ("reading", "point", "timeseries")


def layout_of(document: Mapping[str, Any] | None) -> str:
    """Return the layout of a document of the sink; empty if it is not known."""
    if document is None:
        return ""
    if isinstance(document.get(META_FIELD), Mapping):
        return "timeseries"
    if "from" in document and "to" in document:
        return "command-history"
    if "time" in document and "time_us" in document:
        return "point" if "point" in document and "value" in document else "reading"
    return "cloudagent" if "date" in document else ""


def known_point(names: Mapping[str, Any], newest: Mapping[str, Any], last: int) -> KnownPoint:
    """Return a point from its names and its newest topic and units."""
    name = PointName(names["platform"], names["device"], names["point"])
    return KnownPoint(name, newest["topic"], newest["units"], last)


def points_stages(layout: str) -> list[dict[str, Any]]:
    """Return a pipeline that reads all documents: ``_id`` has the names, and ``newest`` topic and units."""
    if layout == "reading":
        found: list[dict[str, Any]] = [
            {"$match": {"points": {"$type": "object"}, "device": {"$type": "string"}}},
            {
                "$project": {
                    **dict.fromkeys(("platform", "device", "time_us", "topic"), 1),
                    "units": {"$objectToArray": {"$ifNull": ["$units", {}]}},
                    "points": {"$objectToArray": "$points"},
                }
            },
            {"$unwind": "$points"},
        ]
        names = {"platform": "$platform", "device": "$device", "point": "$points.k"}
        matching = {"$filter": {"input": "$units", "cond": {"$eq": ["$$this.k", "$points.k"]}}}
        units: Any = {"$let": {"vars": {"unit": {"$arrayElemAt": [matching, 0]}}, "in": "$$unit.v"}}
    else:
        found = []
        of = f"${META_FIELD}." if layout == "timeseries" else "$"
        names = {name: of + name for name in PointName._fields}
        units = "$units"
    newest = {"t": "$time_us", "topic": "$topic", "units": {"$ifNull": [units, None]}}
    return [*found, {"$group": {"_id": names, "newest": {"$max": newest}}}]
