"""Writing to a time-series collection, which has no unique index, no upsert and no transaction.

What keeps a document single there, in order:

1. One task writes a series: its key (the device) is its partition, and a partition has one task.
2. Before an insert, one read finds which documents of the batch are there: on the primary, by series and
   time, which are indexed. Only the others are inserted.
3. What is found counts only if a majority has it; else it is not safe yet, and is waited for.
4. After an insert whose outcome is not known, nothing is read or written until it cannot take effect any
   more. The server gives up a command after ``maxTimeMS``, counted from its receipt; we close the
   connection after as long; so after twice that time from sending, it has happened or never will.

What remains: a task that began while an insert of its predecessor was still under way (a rebalance, a
worker killed within an insert and started again at once), and a server that was stopped between receiving
and executing (a paused machine), can leave a document twice. ``tieline mongo dedupe`` removes those.
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
from tieline_connectors.mongo.writing.collection import Documents, Inserted, Stored
from tieline_connectors.mongo.writing.failures import about_document, by_code, is_about_the_server, judged

_EXISTS = 48
_MAX_MEASUREMENT = 4 * 1024 * 1024
"""MongoDB's limit for one document of a time-series collection."""


class TimeSeries(Documents):
    """One time-series collection, as the sink uses it. ``timeout``: seconds that one command may take."""

    _never_folded = frozenset({"_id", DIGEST, TIME_FIELD, META_FIELD})

    def __init__(self, collection: Collection[Document], max_bytes: int, timeout: float) -> None:
        super().__init__(collection, min(max_bytes, _MAX_MEASUREMENT))
        self._timeout = timeout
        self._patience = timeout
        self._settled = 0.0

    def prepare(self) -> None:
        """Create the collection. Raises ``FatalError`` where one is there that is no such time series."""
        wanted = {"timeField": TIME_FIELD, "metaField": META_FIELD}
        database, name = self._collection.database, self._collection.name
        try:
            try:
                database.create_collection(name, timeseries=wanted, check_exists=False)
            except OperationFailure as error:
                if error.code != _EXISTS:
                    raise
            (found,) = database.list_collections(filter={"name": name})
        except PyMongoError as error:
            raise judged(error) from error
        given = found.get("options", {}).get("timeseries", {})
        if {field: given.get(field) for field in wanted} != wanted:
            raise FatalError(
                f"{self._collection.full_name} is there and no time series of {TIME_FIELD} and {META_FIELD}; "
                "name another collection, or rename that one"
            )

    def insert(self, documents: Sequence[Document], patience: float | None = None) -> Inserted:
        """Raises ``RetriableError`` as long as an earlier insert may still take effect."""
        self._patience = patience or self._timeout
        return super().insert(documents, patience)

    def _insert(self, documents: Sequence[Stored]) -> Inserted:
        """Those that are not there yet. Raises as pymongo does, ``RetriableError``."""
        left = self._settled - time.monotonic()
        if left > 0:
            raise RetriableError(
                "MongoDB: an earlier insert may still take effect; waiting for that", after=left
            )
        fresh, duplicates, failures = self._sorted(documents)
        if fresh:
            failures |= self._send(documents, fresh)
        return Inserted(duplicates, failures)

    def _sorted(self, documents: Sequence[Stored]) -> tuple[list[int], int, dict[int, Exception]]:
        """Which of them are new; how many are there; which claim the id of another record."""
        known = self._found(documents)
        fresh: list[int] = []
        duplicates = 0
        failures: dict[int, Exception] = {}
        for index, document in enumerate(documents):
            digest = document[DIGEST]
            other = known.setdefault(document["_id"], None)
            if other is None:
                known[document["_id"]] = digest  # so that the same id again in this batch is no new one
                fresh.append(index)
            elif other == digest:
                duplicates += 1
            else:
                failures[index] = self._clash(document["_id"], other, digest)
        return fresh, duplicates, failures

    def _found(self, documents: Sequence[Stored]) -> dict[str, Any]:
        """The digests of those that are there, and safe."""
        asked = _asking_for(documents)
        primary = self._collection.with_options(read_preference=pymongo.ReadPreference.PRIMARY)
        here = self._digests_of(primary, asked)
        if here and self._digests_of(self._majority, asked).keys() != here.keys():
            raise RetriableError("MongoDB: a document is there and not yet safe; trying again")
        return here

    def _digests_of(self, collection: Collection[Document], asked: Mapping[str, Any]) -> dict[str, Any]:
        return {found["_id"]: found.get(DIGEST, "") for found in collection.find(asked, {DIGEST: 1})}

    def _send(self, documents: Sequence[Stored], fresh: Sequence[int]) -> dict[int, Exception]:
        sent = time.monotonic()
        try:
            with pymongo.timeout(self._patience):
                self._collection.insert_many([documents[at] for at in fresh], ordered=False)  # type: ignore[misc]
        except BulkWriteError as error:
            if error.details["writeConcernErrors"]:
                self._settled = sent + 2 * self._patience
                first = error.details["writeConcernErrors"][0]
                raise by_code(first.get("code"), first.get("errmsg", "")) from error
            return _told(error.details["writeErrors"], fresh)
        except ServerSelectionTimeoutError:
            raise  # nothing was sent
        except PyMongoError:
            self._settled = sent + 2 * self._patience
            raise
        return {}


def _asking_for(documents: Sequence[Stored]) -> dict[str, Any]:
    """One query for all of them: a series, the time from its first to its last, its ids."""
    series: dict[tuple[Any, ...], list[Stored]] = {}
    for document in documents:
        series.setdefault(tuple(document[META_FIELD].values()), []).append(document)
    return {
        "$or": [
            {
                META_FIELD: of_one[0][META_FIELD],
                TIME_FIELD: {
                    "$gte": min(document[TIME_FIELD] for document in of_one),
                    "$lte": max(document[TIME_FIELD] for document in of_one),
                },
                "_id": {"$in": [document["_id"] for document in of_one]},
            }
            for of_one in series.values()
        ]
    }


def _told(errors: Sequence[Mapping[str, Any]], fresh: Sequence[int]) -> dict[int, Exception]:
    """What the server says of single documents: those were not written, all others were."""
    failures: dict[int, Exception] = {}
    for error in errors:
        if is_about_the_server(error["code"]):
            raise by_code(error["code"], error["errmsg"])
        failures[fresh[error["index"]]] = about_document(error)
    return failures
