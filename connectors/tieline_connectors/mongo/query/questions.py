"""The questions people ask of what the sink has stored, and how the answers look; pure.

They work on each layout without being told which: ``time`` orders the layouts ``reading``, ``point``,
``timeseries`` and ``command-history``, ``date`` the layout ``cloudagent`` and what the old agent left
(its dates are text).
"""

from __future__ import annotations

import base64
import datetime as dt
import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from bson import Decimal128, ObjectId

from tieline_connectors.mongo.documents.history import CLOUD
from tieline_connectors.mongo.documents.layouts import DIGEST, META_FIELD

Document = Mapping[str, Any]

TIME_FIELDS = ("time", "date")


class Question(NamedTuple):
    """What is asked for; all of it has to hold."""

    topic: str | None = None
    pattern: str | None = None
    """A regular expression, somewhere in the topic."""
    device: str | None = None
    since: dt.datetime | None = None
    until: dt.datetime | None = None
    history: str | None = None
    """``from-cloud``: commands; ``to-cloud``: what became of them."""
    command: str | None = None
    """A command's id: it and all that was told of it."""

    def filter(self, time_field: str | None, is_series: bool = False) -> dict[str, Any]:
        """The query for a collection that is ordered by this field; ``is_series``: the layout timeseries.

        Raises ``ValueError`` where a time is asked for and there is none.
        """
        every: list[dict[str, Any]] = []
        if self.topic is not None:
            every.append({"topic": self.topic})
        if self.pattern is not None:
            every.append({"topic": {"$regex": self.pattern}})
        if self.device is not None:
            every.append(_of_device(self.device, time_field, is_series))
        if self.history is not None:
            every.append({"from" if self.history == "from-cloud" else "to": CLOUD})
        if self.command is not None:
            every.append({"command_id": self.command})
        asked = {"$gte": self.since, "$lt": self.until}
        limits = {name: limit for name, limit in asked.items() if limit is not None}
        if limits:
            if time_field is None:
                raise ValueError("the documents of this collection have neither time nor date to compare")
            every.append(_within(limits, time_field))
        return every[0] if len(every) == 1 else {"$and": every} if every else {}


def time_field_of(document: Document | None) -> str | None:
    """By which field documents like this one are ordered."""
    return next((name for name in TIME_FIELDS if document and name in document), None)


def order_of(document: Document | None) -> tuple[str, ...]:
    """By which fields documents like this one are put in order; none: by their insertion."""
    field = time_field_of(document)
    if field is None or document is None:
        return ()
    return (field, "time_us") if is_history(document) else (field,)


def is_history(document: Document) -> bool:
    """Whether documents like this one are of the layout ``command-history``."""
    return "from" in document and "to" in document


def is_series(document: Document | None) -> bool:
    """Whether documents like this one are of the layout ``timeseries``."""
    return document is not None and isinstance(document.get(META_FIELD), Mapping)


def json_line(document: Document) -> str:
    """The whole document on one line: dates in ISO 8601, integers exact, whatever their size."""
    text = json.dumps(document, default=_plain, ensure_ascii=False)
    return text if text.isprintable() else json.dumps(document, default=_plain)


def row(document: Document) -> tuple[str, str, str]:
    """Time, topic and content, for a table. Nothing in it can move a terminal's cursor."""
    time = document.get(time_field_of(document) or "", "")
    if isinstance(time, dt.datetime):
        time = time.strftime("%Y-%m-%d %H:%M:%S.") + f"{time.microsecond // 1000:03d}"
    return _printable(str(time)), _printable(_subject(document)), _printable(_content(document))


def _subject(document: Document) -> str:
    if "topic" not in document and is_history(document):
        return f"{document['from']} → {document['to']}"
    return str(document.get("topic", ""))


def _content(document: Document) -> str:
    point = document[META_FIELD].get("point") if is_series(document) else document.get("point")
    if isinstance(point, str) and "value" in document:
        return f"{point}={_short(document['value'])}{_unit(document.get('units'))}"
    points = document.get("points")
    if isinstance(points, Mapping):
        units = document.get("units") or {}
        return "  ".join(f"{name}={_short(value)}{_unit(units.get(name))}" for name, value in points.items())
    if is_history(document):
        told = [f"{document.get('device_point')}={_short(document.get('new_value'))}"]
        told += [str(document[name]) for name in ("message", "issuer", "command_id") if document.get(name)]
        return "  ".join(told)
    if "message" in document:
        return json_line({"message": document["message"]})[len('{"message": ') : -1]
    return json_line({k: v for k, v in document.items() if k not in ("_id", DIGEST, "topic", *TIME_FIELDS)})


def _short(value: Any) -> str:
    return (
        f"{value:.6g}" if isinstance(value, float) else json.dumps(value, default=_plain, ensure_ascii=False)
    )


def _unit(unit: Any) -> str:
    return f" {unit}" if unit else ""


def _printable(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _plain(value: Any) -> Any:
    if isinstance(value, dt.datetime):
        return value.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    if isinstance(value, Decimal128):
        number = value.to_decimal()
        return int(number) if number.is_finite() and number == number.to_integral_value() else str(value)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, ObjectId):
        return str(value)
    return str(value)


def _of_device(device: str, time_field: str | None, is_series: bool) -> dict[str, Any]:
    if is_series:
        return {f"{META_FIELD}.device": device}
    if time_field == "time":
        return {"device": device}
    return {"topic": {"$regex": f"^devices/{re.escape(device)}/[^/]+$"}}


def _within(limits: Mapping[str, dt.datetime], field: str) -> dict[str, Any]:
    if field == "time":
        return {field: dict(limits)}
    # MongoDB compares only like with like; the old agent's dates are text
    text = {
        name: limit.astimezone(dt.timezone.utc).strftime("%Y-%m-%d %H:%M:%S.%f")
        for name, limit in limits.items()
    }
    return {"$or": [{field: dict(limits)}, {field: text}]}
