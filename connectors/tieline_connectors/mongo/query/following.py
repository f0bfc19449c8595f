"""New documents as they come: a change stream where the server has one, else a look every second."""

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
"""No replica set; a server that knows no change streams."""


def follow(
    collection: Collection[Document],
    matching: Mapping[str, Any],
    time_field: str | None,
    notify: Callable[[str], None],
) -> Iterator[list[Document]]:
    """Lists of new documents, often empty, for ever: the first is empty and says that it has begun.

    An outage is told through ``notify`` and waited out. Raises as pymongo does where it cannot follow.
    """
    try:
        yield from _changes(collection, matching, notify)
    except OperationFailure as error:
        if error.code not in _NO_CHANGE_STREAM or time_field is None:
            raise
        notify("the server has no change streams: looking every second")
        yield from _looks(collection, matching, time_field, notify)


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
            notify("the server is away: trying again")
            time.sleep(1)


def _looks(
    collection: Collection[Document],
    matching: Mapping[str, Any],
    field: str,
    notify: Callable[[str], None],
) -> Iterator[list[Document]]:
    """Sees what is at most five minutes older than the newest, or than now: one may be from the future."""
    aware: CodecOptions[Document] = collection.codec_options.with_options(tz_aware=True)
    collection = collection.with_options(codec_options=aware)
    since = dt.datetime.now(dt.timezone.utc) - _OVERLAP
    known: set[Any] | None = None
    while True:
        try:
            recent = {"$and": [dict(matching), {field: {"$gte": since}}]}
            found = list(collection.find(recent).sort(field, ASCENDING))
        except ConnectionFailure:
            notify("the server is away: trying again")
        else:
            yield [] if known is None else [document for document in found if document["_id"] not in known]
            known = {document["_id"] for document in found}
            now = dt.datetime.now(dt.timezone.utc)
            newest = [time for time in (document[field] for document in found) if _is_past(time, now)]
            since = max([since, *(time - _OVERLAP for time in newest[-1:])])
        time.sleep(1)


def _is_past(time: Any, now: dt.datetime) -> bool:
    return isinstance(time, dt.datetime) and time <= now  # beyond the year 9999 it is none


def _below(prefix: str, matching: Mapping[str, Any]) -> dict[str, Any]:
    """The same query for a document that stands in a field."""
    return {
        name if name.startswith("$") else f"{prefix}.{name}": (
            [_below(prefix, part) for part in content] if name in ("$and", "$or") else content
        )
        for name, content in matching.items()
    }
