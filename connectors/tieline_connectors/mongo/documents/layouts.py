"""Layouts convert a record to its documents, with one function for each layout; pure.

A layout does not set ``_id`` and ``_digest``: the sink sets them from the record's identity.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from pymongo import ASCENDING, DESCENDING

from tieline.api import SinkRecord
from tieline_connectors.mongo.documents import history, points
from tieline_connectors.mongo.documents.values import from_json, is_flat, may_be_deep, shallow, to_date
from tieline_connectors.points.values import units
from tieline_connectors.volttron_bus.messages.readings import rebuild

DIGEST = "_digest"
"""The field that distinguishes the same record from another one with the same ``_id``."""

_SINK_FIELDS = frozenset({"_id", DIGEST})
"""The fields that the sink sets."""

TIME_FIELD, META_FIELD = "time", "series"
"""The time field and the meta field of a time-series collection."""

_MAX_NAME = 4096
"""Every read names the series of its batch, and a query is limited to 16 MB."""

IndexKeys = Sequence[tuple[str, int]]
Document = dict[str, Any]

AUTHOR = "volttron.cloudagnet"
"""The old agent's spelling, which its readers may expect."""


class LayoutOptions(NamedTuple):
    """The settings of layouts."""

    publishes: tuple[str, ...] = ()
    """The kinds of readings to store; empty: the layout's default."""
    source: str = ""
    """``source`` of the cloudagent layout; empty: the platform's name."""
    text_dates: bool = False
    """Whether ``date`` of the cloudagent layout is text, as the old agent wrote it."""
    store_tombstones: bool = False
    """Whether the layout value stores a tombstone with its key."""


class Layout(NamedTuple):
    """How to create documents, and the indexes for their queries.

    ``documents`` returns each document by the suffix of its ``_id`` after the record's id, which is empty if
    there is only one. The result is empty if a record has nothing to store. It raises ``ValueError`` for a
    record that does not fit the layout. ``kinds`` are the readings that the layout stores; ``None`` means
    all. With ``takes_tombstones``, a record without a value is not skipped. ``has_points`` says whether
    documents contain values of points, of which there can be rollups.
    """

    documents: Callable[[SinkRecord], Mapping[str, Document]]
    indexes: Sequence[IndexKeys] = ()
    kinds: Sequence[str] | None = None
    is_time_series: bool = False
    takes_tombstones: bool = False
    has_points: bool = False


def _reading(options: LayoutOptions) -> Layout:
    return Layout(
        lambda record: {"": reading(record)},
        (
            (("time", DESCENDING),),
            (("topic", ASCENDING), ("time", DESCENDING)),
            (("device", ASCENDING), ("time", DESCENDING)),
        ),
        options.publishes or ("ALL", "MULTI"),
        has_points=True,
    )


def _point(options: LayoutOptions) -> Layout:
    return Layout(
        point,
        (
            (("time", DESCENDING),),
            (("topic", ASCENDING), ("time", DESCENDING)),
            (("device", ASCENDING), ("point", ASCENDING), ("time", DESCENDING)),
        ),
        options.publishes or ("ALL", "MULTI", "POINT"),
        has_points=True,
    )


def _timeseries(options: LayoutOptions) -> Layout:
    return Layout(
        measurement,
        (((META_FIELD, ASCENDING), (TIME_FIELD, ASCENDING)),),  # since 6.3 MongoDB creates it by itself
        options.publishes or ("ALL", "MULTI", "POINT"),
        is_time_series=True,
        has_points=True,
    )


def _cloudagent(options: LayoutOptions) -> Layout:
    return Layout(
        lambda record: {"": cloudagent(record, options)},
        (
            (("date", DESCENDING),),
            (("topic", ASCENDING), ("date", DESCENDING)),
        ),
    )


def _command_history(options: LayoutOptions) -> Layout:
    return Layout(history.history, history.INDEXES)


def _value(options: LayoutOptions) -> Layout:
    return Layout(lambda record: {"": value(record)}, takes_tombstones=options.store_tombstones)


LAYOUTS: Mapping[str, Callable[[LayoutOptions], Layout]] = {
    "cloudagent": _cloudagent,
    "command-history": _command_history,
    "point": _point,
    "reading": _reading,
    "timeseries": _timeseries,
    "value": _value,
}
"""The layouts by their name in the configuration."""


def reading(record: SinkRecord) -> Document:
    """Return one document for each publication: a device's points, or any other message.

    A device's document omits the headers of the bus and each point's type and tz.
    """
    given = record.value
    try:
        document = {
            "topic": given["topic"],
            "time": to_date(given["time"]),
            "time_us": given["time"],
            "time_source": given["time_source"],
            "received": to_date(given["received"]),
            "platform": given["platform"],
            "sender": given["sender"],
        }
        if "device" in given:
            document["device"] = given["device"]
        if "body" in given:
            document["headers"] = from_json(given["headers"])
            document["message"] = from_json(given["body"])
            return document
        document["kind"] = given["kind"]
        document["points"] = points.values(given["points"])
        document["units"] = units(given["metadata"])
        return document
    except (KeyError, TypeError, AttributeError) as error:
        raise _unsupported("reading", record, error) from None


def point(record: SinkRecord) -> dict[str, Document]:
    """Return one document for each value of a reading or data log; none for another message of the bus."""
    given = record.value
    try:
        received = to_date(given["received"])
        return {
            f"/{item.key}": {
                "topic": given["topic"],
                "time": to_date(item.time),
                "time_us": item.time,
                "time_source": item.time_source,
                "received": received,
                "platform": given["platform"],
                "sender": given["sender"],
                "device": given["device"],
                "point": item.point,
                "value": item.value,
                "units": item.units,
            }
            for item in points.each_value(given)
        }
    except (KeyError, TypeError, AttributeError) as error:
        raise _unsupported("point", record, error) from None


def measurement(record: SinkRecord) -> dict[str, Document]:
    """Return the documents of ``point`` for a time-series collection, with a series field."""
    return {key: _as_measurement(document) for key, document in point(record).items()}


def _as_measurement(document: Document) -> Document:
    series = {name: document[name] for name in ("platform", "device", "point")}
    if not isinstance(document["time"], datetime):
        raise ValueError("layout 'timeseries' takes times up to the year 9999")
    if sum(map(len, series.values())) > _MAX_NAME:
        raise ValueError(f"layout 'timeseries' takes up to {_MAX_NAME} letters of platform, device, point")
    copied = ("value", "units", "time_us", "time_source", "topic", "received")
    return {TIME_FIELD: document["time"], META_FIELD: series, **{name: document[name] for name in copied}}


def cloudagent(record: SinkRecord, options: LayoutOptions) -> Document:
    """The old agent's document: exactly ``author, source, date, topic, headers, message``."""
    given = record.value
    try:
        message = rebuild(given)
        source = options.source or given["platform"]
        date = to_date(given["time"])
        headers, body = message.headers, message.body
        if _may_be_deep(given):
            headers, body = shallow(headers), shallow(body)
    except (ValueError, KeyError, TypeError) as error:
        raise _unsupported("cloudagent", record, error) from None
    return {
        "author": AUTHOR,
        "source": source,
        "date": as_text(date) if options.text_dates else date,
        "topic": message.topic,
        "headers": headers,
        "message": body,
    }


def value(record: SinkRecord) -> Document:
    """Return the fields of the value, unchanged; a value without fields is in the field ``value``.

    A tombstone, which marks its key as deleted, becomes its key with a null. The value's own fields ``_id``
    and ``_digest`` get another underscore in front.
    """
    given = record.value
    if is_tombstone(record):
        return {"key": shallow(record.key), "value": None}
    if not isinstance(given, dict):
        return {"value": shallow(given)}
    document = given.copy() if is_flat(given) else {key: shallow(item) for key, item in given.items()}
    for name in _SINK_FIELDS & document.keys():
        document[f"_{name}"] = document.pop(name)
    return document


def is_tombstone(record: SinkRecord) -> bool:
    """Return whether the record has no value. A null of a schema is a value."""
    return record.value is None and record.value_schema is None


def as_text(date: Any) -> str:
    """Return the form of ``str(datetime.now())``, which the old agent stored, always with microseconds."""
    return date.isoformat(" ", "microseconds") if isinstance(date, datetime) else str(int(date))


def _may_be_deep(given: Mapping[str, Any]) -> bool:
    if "body" in given:
        return may_be_deep(given["body"]) or may_be_deep(given["headers"])
    folded = [*given["points"].values(), *given["headers"].values()]
    return dict in set(map(type, folded)) or any("json" in entry for entry in given["metadata"].values())


def _unsupported(layout: str, record: SinkRecord, cause: Exception) -> ValueError:
    schema = record.value_schema.name if record.value_schema else "a value without schema"
    return ValueError(
        f"layout {layout!r} takes volttron.DeviceReading, .DataLog and .BusMessage, and does not fit"
        f" {schema} ({type(cause).__name__}: {cause}); layout=value takes any data"
    )
