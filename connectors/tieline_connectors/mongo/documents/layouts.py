"""Layouts: from a record to the documents that stand for it; pure, one function a layout.

A layout sets neither ``_id`` nor ``_digest``: the sink does, from the record's identity.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from pymongo import ASCENDING, DESCENDING

from tieline.api import SinkRecord
from tieline_connectors.mongo.documents import history, points
from tieline_connectors.mongo.documents.values import from_json, is_flat, may_be_deep, moment, shallow
from tieline_connectors.volttron_bus.messages.readings import rebuild

DIGEST = "_digest"
"""The field beside ``_id`` that tells the same record from another of the same id."""

_OWN = frozenset({"_id", DIGEST})
"""The fields that the sink sets."""

TIME_FIELD, META_FIELD = "time", "series"
"""Of a time-series collection: when, and of what."""

_LONGEST_NAME = 4096
"""Every read names the series of its batch, and a query has 16 MB."""

IndexKeys = Sequence[tuple[str, int]]
Document = dict[str, Any]

AUTHOR = "volttron.cloudagnet"
"""As the old agent spelled it; its readers may match on it."""


class LayoutOptions(NamedTuple):
    """What a configuration may say to a layout."""

    publishes: tuple[str, ...] = ()
    """The kinds of readings to take; empty: the layout's own."""
    source: str = ""
    """``source`` of the cloudagent layout; empty: the platform's name."""
    text_dates: bool = False
    """``date`` of the cloudagent layout as text, as the old agent wrote it."""
    store_tombstones: bool = False
    """The layout value stores a tombstone with its key."""


class Layout(NamedTuple):
    """How to make documents, and the indexes that their questions need.

    ``documents`` gives each document by what distinguishes its ``_id`` from the record's id (nothing where
    there is but one); none where a record has nothing to store. Raises ``ValueError`` for a record that it
    has no place for. ``kinds``: which readings it takes; none: no matter which. ``takes_tombstones``: a
    record without a value is not skipped.
    """

    documents: Callable[[SinkRecord], Mapping[str, Document]]
    indexes: Sequence[IndexKeys] = ()
    kinds: Sequence[str] | None = None
    is_time_series: bool = False
    takes_tombstones: bool = False


def _reading(options: LayoutOptions) -> Layout:
    return Layout(
        lambda record: {"": reading(record)},
        (
            (("time", DESCENDING),),
            (("topic", ASCENDING), ("time", DESCENDING)),
            (("device", ASCENDING), ("time", DESCENDING)),
        ),
        options.publishes or ("ALL", "MULTI"),
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
    )


def _timeseries(options: LayoutOptions) -> Layout:
    return Layout(
        measurement,
        (((META_FIELD, ASCENDING), (TIME_FIELD, ASCENDING)),),  # from 6.3 on MongoDB has it by itself
        options.publishes or ("ALL", "MULTI", "POINT"),
        is_time_series=True,
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
"""By the name that a configuration gives; a further layout is a further line here."""


def reading(record: SinkRecord) -> Document:
    """One document a publication: of a device its points, of anything else the message.

    A device's document leaves out the headers of the bus and each point's type and tz.
    """
    given = record.value
    try:
        document = {
            "topic": given["topic"],
            "time": moment(given["time"]),
            "time_us": given["time"],
            "time_source": given["time_source"],
            "received": moment(given["received"]),
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
        document["units"] = points.units(given["metadata"])
        return document
    except (KeyError, TypeError, AttributeError) as error:
        raise _no_place("reading", record, error) from None


def point(record: SinkRecord) -> dict[str, Document]:
    """One document a value of a reading or a data log; none of any other message of the bus."""
    given = record.value
    try:
        received = moment(given["received"])
        return {
            f"/{one.key}": {
                "topic": given["topic"],
                "time": moment(one.time),
                "time_us": one.time,
                "time_source": one.time_source,
                "received": received,
                "platform": given["platform"],
                "sender": given["sender"],
                "device": given["device"],
                "point": one.point,
                "value": one.value,
                "units": one.units,
            }
            for one in points.each(given)
        }
    except (KeyError, TypeError, AttributeError) as error:
        raise _no_place("point", record, error) from None


def measurement(record: SinkRecord) -> dict[str, Document]:
    """As ``point``, for a time-series collection: what stays the same in a series stands apart."""
    return {key: _measured(made) for key, made in point(record).items()}


def _measured(made: Document) -> Document:
    series = {name: made[name] for name in ("platform", "device", "point")}
    if not isinstance(made["time"], datetime):
        raise ValueError("layout 'timeseries' takes times up to the year 9999")
    if sum(map(len, series.values())) > _LONGEST_NAME:
        raise ValueError(
            f"layout 'timeseries' takes up to {_LONGEST_NAME} letters of platform, device, point"
        )
    told = ("value", "units", "time_us", "time_source", "topic", "received")
    return {TIME_FIELD: made["time"], META_FIELD: series, **{name: made[name] for name in told}}


def cloudagent(record: SinkRecord, options: LayoutOptions) -> Document:
    """The old agent's document: exactly ``author, source, date, topic, headers, message``."""
    given = record.value
    try:
        message = rebuild(given)
        source = options.source or given["platform"]
        date = moment(given["time"])
        headers, body = message.headers, message.body
        if _may_be_deep(given):
            headers, body = shallow(headers), shallow(body)
    except (ValueError, KeyError, TypeError) as error:
        raise _no_place("cloudagent", record, error) from None
    return {
        "author": AUTHOR,
        "source": source,
        "date": _as_text(date) if options.text_dates else date,
        "topic": message.topic,
        "headers": headers,
        "message": body,
    }


def value(record: SinkRecord) -> Document:
    """The fields of the value as they are; a value that has no fields under ``value``.

    A tombstone, which says that its key is deleted, is its key beside a null.

    Fields of its own called ``_id`` and ``_digest`` get another underscore in front.
    """
    given = record.value
    if is_tombstone(record):
        return {"key": shallow(record.key), "value": None}
    if not isinstance(given, dict):
        return {"value": shallow(given)}
    document = given.copy() if is_flat(given) else {key: shallow(item) for key, item in given.items()}
    for name in _OWN & document.keys():
        document[f"_{name}"] = document.pop(name)
    return document


def is_tombstone(record: SinkRecord) -> bool:
    """Whether there is no value; a null that a schema allows is one."""
    return record.value is None and record.value_schema is None


def _as_text(date: Any) -> str:
    """As Python's ``str(datetime.now())``, which the old agent stored; always with microseconds."""
    return date.isoformat(" ", "microseconds") if isinstance(date, datetime) else str(int(date))


def _may_be_deep(given: Mapping[str, Any]) -> bool:
    if "body" in given:
        return may_be_deep(given["body"]) or may_be_deep(given["headers"])
    folded = [*given["points"].values(), *given["headers"].values()]
    return dict in set(map(type, folded)) or any("json" in entry for entry in given["metadata"].values())


def _no_place(layout: str, record: SinkRecord, cause: Exception) -> ValueError:
    schema = record.value_schema.name if record.value_schema else "a value without schema"
    return ValueError(
        f"layout {layout!r} takes volttron.DeviceReading, .DataLog and .BusMessage, and cannot place"
        f" {schema} ({type(cause).__name__}: {cause}); layout=value takes any data"
    )
