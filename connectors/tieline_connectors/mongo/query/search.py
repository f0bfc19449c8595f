"""Searches for documents of any layout, and their display; pure.

A search recognizes the layout by its fields: ``time`` orders the layouts ``reading``, ``point``,
``timeseries`` and ``command-history``; ``date`` orders the layout ``cloudagent`` and documents of the old
agent, whose dates are text.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from typing import Any

from bson import Decimal128

from tieline_connectors.mongo.documents.history import CLOUD
from tieline_connectors.mongo.documents.layouts import DIGEST, META_FIELD, as_text
from tieline_connectors.mongo.documents.values import to_date
from tieline_connectors.mongo.query.chart import within
from tieline_connectors.points import display
from tieline_connectors.points.display import printable, with_unit
from tieline_connectors.points.questions import Search

Document = Mapping[str, Any]

TIME_FIELDS = ("time", "date")


def filter_of(search: Search, time_field: str | None, is_series: bool = False) -> dict[str, Any]:
    """Return the query for a collection that ``time_field`` orders.

    ``is_series`` says whether its layout is timeseries. Raises ``ValueError`` if the search has a time but
    the documents do not.
    """
    conditions: list[dict[str, Any]] = []
    if search.topic is not None:
        conditions.append({"topic": search.topic})
    if search.pattern is not None:
        conditions.append({"topic": {"$regex": search.pattern}})
    if search.device is not None:
        conditions.append(_of_device(search.device, time_field, is_series))
    if search.history is not None:
        conditions.append({"from" if search.history == "from-cloud" else "to": CLOUD})
    if search.command is not None:
        conditions.append({"command_id": search.command})
    times = {"$gte": search.since, "$lt": search.until}
    limits = {name: limit for name, limit in times.items() if limit is not None}
    if limits:
        if time_field is None:
            raise ValueError("the documents of this collection have neither time nor date to compare")
        conditions.append(_within(limits, time_field))
    return _all_of(conditions)


def match_stages(search: Search, newest: Document) -> list[dict[str, Any]]:
    """Return the first stages of a pipeline for a collection with documents like this one.

    They are exact to the microsecond if the documents are. MongoDB merges them into one. The embedded server
    uses an index for the first stage alone, and only for equalities and one range.
    """
    field, series = time_field_of(newest), is_series(newest)
    if "time_us" not in newest:
        stages = [filter_of(Search(topic=search.topic), field), filter_of(search._replace(topic=None), field)]
    else:
        equal = filter_of(search._replace(pattern=None, since=None, until=None), field, series)
        exact = {name: limit for name, limit in within(search.since, search.until).items() if name != field}
        # From a millisecond earlier: with an index of three fields, the embedded server misses documents at
        # the very start of a range. The second stage is exact.
        earlier = None if search.since is None else search.since - 1000
        indexed = {name: limit for name, limit in within(earlier, search.until).items() if name == field}
        stages = [equal | indexed, filter_of(Search(pattern=search.pattern), field) | exact]
    return [{"$match": stage} for stage in stages if stage]


def _all_of(conditions: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return one condition, without ``$and`` if possible: below it the embedded server uses no index."""
    fields = [field for condition in conditions for field in condition]
    if len(set(fields)) == len(fields):
        return {field: value for condition in conditions for field, value in condition.items()}
    return {"$and": [condition for condition in conditions if condition]}


def time_field_of(document: Document | None) -> str | None:
    """Return the field that orders documents like this one, or ``None``."""
    return next((name for name in TIME_FIELDS if document and name in document), None)


def order_of(document: Document | None) -> tuple[str, ...]:
    """Return the fields that order documents like this one; empty: the order of insertion."""
    field = time_field_of(document)
    if field is None or document is None:
        return ()
    return (field, "time_us") if is_history(document) else (field,)


def is_history(document: Document) -> bool:
    """Return whether documents like this one have the layout ``command-history``."""
    return "from" in document and "to" in document


def is_series(document: Document | None) -> bool:
    """Return whether documents like this one have the layout ``timeseries``."""
    return document is not None and isinstance(document.get(META_FIELD), Mapping)


def json_line(document: Document) -> str:
    """Return the document as one line of JSON, with dates in ISO 8601 and exact integers."""
    return display.json_line(document, _plain)


def row(document: Document) -> tuple[str, str, str]:
    """Return time, topic and content for a table, without control characters for a terminal."""
    time = display.date_text(document.get(time_field_of(document) or "", ""))
    return printable(time), printable(_subject(document)), printable(_content(document))


def _subject(document: Document) -> str:
    if "topic" not in document and is_history(document):
        return f"{document['from']} → {document['to']}"
    return str(document.get("topic", ""))


def _content(document: Document) -> str:
    point = document[META_FIELD].get("point") if is_series(document) else document.get("point")
    if isinstance(point, str) and "value" in document:
        return f"{point}={_short(document['value'])}{with_unit(document.get('units'))}"
    points = document.get("points")
    if isinstance(points, Mapping):
        units = document.get("units") or {}
        return "  ".join(
            f"{name}={_short(value)}{with_unit(units.get(name))}" for name, value in points.items()
        )
    if is_history(document):
        parts = [f"{document.get('device_point')}={_short(document.get('new_value'))}"]
        parts += [str(document[name]) for name in ("message", "issuer", "command_id") if document.get(name)]
        return "  ".join(parts)
    if "message" in document:
        return json_line({"message": document["message"]})[len('{"message": ') : -1]
    return json_line({k: v for k, v in document.items() if k not in ("_id", DIGEST, "topic", *TIME_FIELDS)})


def _short(value: Any) -> str:
    return display.short(value, _plain)


def _plain(value: Any) -> Any:
    if isinstance(value, Decimal128):
        number = value.to_decimal()
        return int(number) if number.is_finite() and number == number.to_integral_value() else str(value)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return display.to_plain(value)  # also an ObjectId's text


def _of_device(device: str, time_field: str | None, is_series: bool) -> dict[str, Any]:
    if is_series:
        return {f"{META_FIELD}.device": device}
    if time_field == "time":
        return {"device": device}
    return {"topic": {"$regex": f"^devices/{re.escape(device)}/[^/]+$"}}


def _within(limits: Mapping[str, int], field: str) -> dict[str, Any]:
    dates = {name: to_date(limit) for name, limit in limits.items()}
    if field == "time":
        return {field: dates}
    # MongoDB compares only values of one type, and the old agent's dates are text
    return {"$or": [{field: dates}, {field: {name: as_text(date) for name, date in dates.items()}}]}
