"""Yields new documents: from a change stream, or from a query every second if the server has none."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from bson.codec_options import CodecOptions
from pymongo import ASCENDING
from pymongo.collection import Collection
from pymongo.errors import ConnectionFailure, OperationFailure

Document = dict[str, Any]

_OVERLAP = dt.timedelta(minutes=5)
_NO_CHANGE_STREAM = {20, 59, 115, 40573, 40324}
"""Error codes of a server without a replica set or without change streams."""


def follow(
    collection: Collection[Document],
    matching: Mapping[str, Any],
    time_field: str | None,
    notify: Callable[[str], None],
) -> Iterator[list[Document]]:
    """Yield lists of new documents for ever, many of them empty. The first one marks the start.

    An outage is reported through ``notify``, and the generator waits for its end. Raises pymongo's errors if
    it cannot follow.
    """
    try:
        yield from _changes(collection, matching, notify)
    except OperationFailure as error:
        if error.code not in _NO_CHANGE_STREAM or time_field is None:
            raise
        notify("the server has no change streams: querying every second")
        yield from _poll(collection, matching, time_field, notify)


def _changes(
    collection: Collection[Document], matching: Mapping[str, Any], notify: Callable[[str], None]
) -> Iterator[list[Document]]:
    pipeline = [{"$match": {"operationType": "insert", **_below("fullDocument", matching)}}]
    token: Any = None
    while True:
        try:
            with collection.watch(pipeline, resume_after=token, max_await_time_ms=500) as stream:
                yield []
                while stream.alive:
                    change = stream.try_next()
                    token = stream.resume_token
                    yield [change["fullDocument"]] if change else []
        except ConnectionFailure:
            notify("the server is unavailable: retrying")
            time.sleep(1)


def _poll(
    collection: Collection[Document],
    matching: Mapping[str, Any],
    field: str,
    notify: Callable[[str], None],
) -> Iterator[list[Document]]:
    """Query every second for documents at most five minutes older than the newest one, or than now."""
    aware: CodecOptions[Document] = collection.codec_options.with_options(tz_aware=True)
    collection = collection.with_options(codec_options=aware)
    since = dt.datetime.now(dt.timezone.utc) - _OVERLAP
    known: set[Any] | None = None
    while True:
        try:
            recent = {"$and": [dict(matching), {field: {"$gte": since}}]}
            documents = list(collection.find(recent).sort(field, ASCENDING))
        except ConnectionFailure:
            notify("the server is unavailable: retrying")
        else:
            yield (
                [] if known is None else [document for document in documents if document["_id"] not in known]
            )
            known = {document["_id"] for document in documents}
            now = dt.datetime.now(dt.timezone.utc)
            newest = [time for time in (document[field] for document in documents) if _is_past(time, now)]
            since = max([since, *(time - _OVERLAP for time in newest[-1:])])
        time.sleep(1)


def _is_past(time: Any, now: dt.datetime) -> bool:
    return isinstance(time, dt.datetime) and time <= now  # a date beyond the year 9999 is not a datetime


def _below(prefix: str, matching: Mapping[str, Any]) -> dict[str, Any]:
    """Return the query for a document that is in the field ``prefix``."""
    return {
        name if name.startswith("$") else f"{prefix}.{name}": (
            [_below(prefix, part) for part in content] if name in ("$and", "$or") else content
        )
        for name, content in matching.items()
    }
