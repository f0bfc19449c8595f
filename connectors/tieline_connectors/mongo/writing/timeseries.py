"""Writes to a time-series collection, which has no unique index, no upsert and no transaction.

These steps prevent duplicates:

1. One task writes a series: its key (the device) is its partition, and a partition has one task.
2. Before an insert, one read finds the documents of the batch that exist: on the primary, by series and
   time, which are indexed. Only the others are inserted.
3. A document counts only if a majority has it. Otherwise it is not safe yet, and the sink waits.
4. After an insert with an unknown result, the sink neither reads nor writes until that insert cannot take
   effect any more. The server aborts a command ``maxTimeMS`` after its receipt, and we close the connection
   after the same time. Twice that time after sending, the insert has happened or never will.

Two cases can still leave a duplicate. A task may start while an insert of its predecessor is running (a
rebalance, or a worker that is killed during an insert and restarted at once). A server may be paused between
receipt and execution. ``tieline mongo dedupe`` removes such duplicates.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import pymongo
from pymongo.collection import Collection
from pymongo.errors import BulkWriteError, OperationFailure, PyMongoError, ServerSelectionTimeoutError

from tieline.api import FatalError, RetriableError
from tieline_connectors.mongo.documents.layouts import DIGEST, META_FIELD, TIME_FIELD, Document
from tieline_connectors.mongo.writing.collection import CollectionWriter, InsertResult, Stored
from tieline_connectors.mongo.writing.failures import (
    error_of_code,
    is_server_error,
    to_data_error,
    to_tieline_error,
)

_EXISTS = 48
_MAX_MEASUREMENT = 4 * 1024 * 1024
"""MongoDB's limit for one document of a time-series collection."""


class TimeSeriesWriter(CollectionWriter):
    """Writes to one time-series collection. ``timeout`` is the limit of one command, in seconds."""

    _never_folded = frozenset({"_id", DIGEST, TIME_FIELD, META_FIELD})

    def __init__(self, collection: Collection[Document], max_bytes: int, timeout: float) -> None:
        super().__init__(collection, min(max_bytes, _MAX_MEASUREMENT))
        self._timeout = timeout
        self._insert_timeout = timeout
        self._quiet_until = 0.0

    def prepare(self) -> None:
        """Create the collection. Raises ``FatalError`` if one exists that is not such a time series."""
        wanted = {"timeField": TIME_FIELD, "metaField": META_FIELD}
        database, name = self._collection.database, self._collection.name
        try:
            try:
                database.create_collection(name, timeseries=wanted, check_exists=False)
            except OperationFailure as error:
                if error.code != _EXISTS:
                    raise
            (existing,) = database.list_collections(filter={"name": name})
        except PyMongoError as error:
            raise to_tieline_error(error) from error
        options = existing.get("options", {}).get("timeseries", {})
        if {field: options.get(field) for field in wanted} != wanted:
            raise FatalError(
                f"{self._collection.full_name} exists, but is not a time series of {TIME_FIELD} and"
                f" {META_FIELD}; name another collection, or rename that one"
            )

    def insert(self, documents: Sequence[Document], timeout: float | None = None) -> InsertResult:
        """Write documents. Raises ``RetriableError`` while an earlier insert may still take effect."""
        self._insert_timeout = timeout or self._timeout
        return super().insert(documents, timeout)

    def insert_once(self, documents: Sequence[Stored]) -> InsertResult:
        """Insert the documents that do not exist. Raises pymongo's errors and ``RetriableError``."""
        left = self._quiet_until - time.monotonic()
        if left > 0:
            raise RetriableError(
                "MongoDB: an earlier insert may still take effect; waiting for it", after=left
            )
        fresh, duplicates, failures = self._split(documents)
        if fresh:
            failures |= self._send(documents, fresh)
        return InsertResult(duplicates, failures)

    def _split(self, documents: Sequence[Stored]) -> tuple[list[int], int, dict[int, Exception]]:
        """Return the indexes of new documents, the number of duplicates, and the clashes of ids."""
        known = self._stored_digests(documents)
        fresh: list[int] = []
        duplicates = 0
        failures: dict[int, Exception] = {}
        for index, document in enumerate(documents):
            digest = document[DIGEST]
            other = known.setdefault(document["_id"], None)
            if other is None:
                known[document["_id"]] = digest  # so that the same id later in this batch is not new
                fresh.append(index)
            elif other == digest:
                duplicates += 1
            else:
                failures[index] = self._clash(document["_id"], other, digest)
        return fresh, duplicates, failures

    def _stored_digests(self, documents: Sequence[Stored]) -> dict[str, Any]:
        """Return the digests of existing documents. Raises ``RetriableError`` if one is not safe yet."""
        query = _query_for(documents)
        primary = self._collection.with_options(read_preference=pymongo.ReadPreference.PRIMARY)
        stored = self._digests_of(primary, query)
        if stored and self._digests_of(self._majority, query).keys() != stored.keys():
            raise RetriableError("MongoDB: a document exists but is not yet safe; trying again")
        return stored

    def _digests_of(self, collection: Collection[Document], query: Mapping[str, Any]) -> dict[str, Any]:
        return {document["_id"]: document.get(DIGEST, "") for document in collection.find(query, {DIGEST: 1})}

    def _send(self, documents: Sequence[Stored], fresh: Sequence[int]) -> dict[int, Exception]:
        sent = time.monotonic()
        try:
            with pymongo.timeout(self._insert_timeout):
                self._collection.insert_many([documents[index] for index in fresh], ordered=False)  # type: ignore[misc]
        except BulkWriteError as error:
            if error.details["writeConcernErrors"]:
                self._quiet_until = sent + 2 * self._insert_timeout
                first = error.details["writeConcernErrors"][0]
                raise error_of_code(first.get("code"), first.get("errmsg", "")) from error
            return _failures(error.details["writeErrors"], fresh)
        except ServerSelectionTimeoutError:
            raise  # nothing was sent
        except PyMongoError:
            self._quiet_until = sent + 2 * self._insert_timeout
            raise
        return {}


def _query_for(documents: Sequence[Stored]) -> dict[str, Any]:
    """Return one query for all documents: each series, the time from its first to its last, and ids."""
    series: dict[tuple[Any, ...], list[Stored]] = {}
    for document in documents:
        series.setdefault(tuple(document[META_FIELD].values()), []).append(document)
    return {
        "$or": [
            {
                META_FIELD: members[0][META_FIELD],
                TIME_FIELD: {
                    "$gte": min(document[TIME_FIELD] for document in members),
                    "$lte": max(document[TIME_FIELD] for document in members),
                },
                "_id": {"$in": [document["_id"] for document in members]},
            }
            for members in series.values()
        ]
    }


def _failures(errors: Sequence[Mapping[str, Any]], fresh: Sequence[int]) -> dict[int, Exception]:
    """Return the failures of single documents; all others were written."""
    failures: dict[int, Exception] = {}
    for error in errors:
        if is_server_error(error["code"]):
            raise error_of_code(error["code"], error["errmsg"])
        failures[fresh[error["index"]]] = to_data_error(error)
    return failures
