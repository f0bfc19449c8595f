"""Writes rollups, so that they contain every stored document, also after a crash.

The sink adds a document to its rollups after the document is written. It writes the rollups before it lets
the offsets of their records be committed. A process that ends in between loses the rollups that were not
written. Its successor gets the same records again, finds their documents, and adds them. An upsert may be
repeated.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping
from typing import Any

import pymongo
from pymongo import UpdateOne
from pymongo.collection import Collection
from pymongo.errors import BulkWriteError, ConnectionFailure, PyMongoError

from tieline.api import RetriableError
from tieline_connectors.mongo.client import CODEC
from tieline_connectors.mongo.documents.layouts import Document
from tieline_connectors.mongo.documents.rollups import POINTS, ROLLUPS, STATE, RollupBuffer, Update
from tieline_connectors.mongo.writing.failures import (
    DUPLICATE_KEY,
    TooSlowError,
    error_of_code,
    to_tieline_error,
)
from tieline_connectors.mongo.writing.insert_size import InsertSize

log = logging.getLogger(__name__)

_UPSERTS = 500
_FULL = 20_000
_WRITE_SECONDS = 20.0
"""A longer write is interrupted and continued, so that the task keeps its place in the group."""


def rollups_of(collection: Collection[Document]) -> Collection[Document]:
    """Return the collection of the rollups of a collection."""
    return collection.database.get_collection(collection.name + ROLLUPS, codec_options=CODEC)


def points_of(collection: Collection[Document]) -> Collection[Document]:
    """Return the collection of the points of a collection, which also has the state of its rollups."""
    return collection.database.get_collection(collection.name + POINTS, codec_options=CODEC)


class RollupWriter:
    """The rollups of one collection. ``timeout`` and ``max_timeout`` of a command are in seconds."""

    def __init__(self, collection: Collection[Document], timeout: float, max_timeout: float) -> None:
        self._source = collection
        self._rollups = rollups_of(collection)
        self._size = InsertSize(_UPSERTS, timeout, max_timeout)
        self._buffer = RollupBuffer()
        self._points = points_of(collection)
        self._pending_points: list[Update] = []
        self._pending: list[Update] = []

    @property
    def is_full(self) -> bool:
        """Whether so much is waiting that it should be written."""
        return self._buffer.size >= _FULL

    def prepare(self) -> None:
        """Note that this sink keeps rollups; they are complete if it writes the first document.

        Raises the runtime's errors.
        """
        try:
            if self._points.find_one({"_id": STATE}) is None:
                is_empty = self._source.find_one({}, {"_id": 1}) is None
                state = {"complete": is_empty, "breaks": 0}
                self._points.update_one({"_id": STATE}, {"$setOnInsert": state}, upsert=True)
                if not is_empty:
                    log.warning(
                        "%s has documents without rollups: `tieline mongo rollup` adds them",
                        self._source.full_name,
                    )
            self._points.update_one({"_id": STATE}, {"$set": {"sink": "on"}})
        except PyMongoError as error:
            raise to_tieline_error(error) from error

    def add(self, documents: Iterable[Mapping[str, Any]]) -> None:
        """Add documents that are written."""
        self._buffer.add(documents)

    def write(self) -> None:
        """Write what was added. Raises the runtime's errors; what is not written yet is then kept."""
        self._pending_points += self._buffer.points()
        self._pending += self._buffer.intervals()
        self._buffer.clear()
        started = time.monotonic()
        for target, pending in ((self._points, self._pending_points), (self._rollups, self._pending)):
            while pending:
                if time.monotonic() - started > _WRITE_SECONDS:
                    raise RetriableError("MongoDB is slow; the rest of the rollups follows", after=0.0)
                written = pending[: self._size.documents]
                self._write(target, written)
                del pending[: len(written)]

    def _write(self, target: Collection[Document], updates: list[Update]) -> None:
        size, started = self._size, time.monotonic()
        requests = [UpdateOne({"_id": update.id}, update.changes, upsert=True) for update in updates]
        try:
            with pymongo.timeout(size.insert_timeout):
                target.bulk_write(requests, ordered=False)
        except BulkWriteError as error:
            raise _to_error(error.details) from error
        except PyMongoError as error:
            translated = to_tieline_error(error)
            if isinstance(translated, TooSlowError):
                size.timed_out(len(updates))
            raise translated from error
        size.succeeded(len(updates), time.monotonic() - started)


def mark_without_rollups(collection: Collection[Document]) -> None:
    """Note that documents are written without rollups from now on.

    Raises the runtime's errors for an outage.
    """
    changes = {"$set": {"sink": "off", "complete": False}, "$inc": {"breaks": 1}}
    try:
        points_of(collection).update_one({"_id": STATE, "sink": {"$ne": "off"}}, changes)
    except ConnectionFailure as error:
        raise to_tieline_error(error) from error
    except PyMongoError as error:
        translated = to_tieline_error(error)
        if isinstance(translated, RetriableError):
            raise translated from error
        log.debug(
            "%s: its rollups, if there are any, are not marked as incomplete: %s", collection, translated
        )


def _to_error(details: Mapping[str, Any]) -> Exception:
    errors = [*details["writeConcernErrors"], *details["writeErrors"]]
    if all(error.get("code") == DUPLICATE_KEY for error in errors):
        return RetriableError("MongoDB: two tasks created the same rollup; trying again", after=0.0)
    first = next(error for error in errors if error.get("code") != DUPLICATE_KEY)
    return error_of_code(first.get("code"), first.get("errmsg", ""))
