"""Writes documents whose ``_id`` and digest come from their records, so that a redelivery changes nothing.

The sink inserts and does not upsert: inserts of new documents are eight times as fast, and never overwrite
anything. For an ``_id`` that already exists the server returns error 11000. The stored digest then shows
whether the document is from the same record (counted) or from another one with that id (a data error).
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import bson
import pymongo
from bson.raw_bson import RawBSONDocument
from pymongo import IndexModel, ReadPreference
from pymongo.collection import Collection
from pymongo.errors import BulkWriteError, NetworkTimeout, OperationFailure, PyMongoError
from pymongo.read_concern import ReadConcern

from tieline.api import RetriableError
from tieline_connectors.mongo.client import CODEC
from tieline_connectors.mongo.documents.compact import compact
from tieline_connectors.mongo.documents.layouts import DIGEST, Document, IndexKeys
from tieline_connectors.mongo.documents.values import storable
from tieline_connectors.mongo.writing.failures import (
    DUPLICATE_KEY,
    OUTAGES,
    UNENCODABLE,
    WHOLE_BATCH,
    TooLargeError,
    error_of_code,
    is_server_error,
    to_data_error,
    to_tieline_error,
)
from tieline_connectors.mongo.writing.rollups import RollupWriter

log = logging.getLogger(__name__)

Stored: TypeAlias = "Mapping[str, Any]"


class InsertResult(NamedTuple):
    """The result of an insert: all documents that ``failures`` does not name exist.

    ``compacted`` is the number of those that were too large and are stored in a smaller form.
    """

    duplicates: int
    failures: dict[int, Exception]
    compacted: int = 0


class CollectionWriter:
    """Writes to one collection. Raises ``RetriableError`` and ``FatalError``."""

    _never_folded: frozenset[str] = frozenset({"_id", DIGEST})

    def __init__(self, collection: Collection[Document], max_bytes: int) -> None:
        self._collection = collection.with_options(codec_options=CODEC)
        # a document that is found by this read must still exist after a failover
        self._majority = collection.with_options(
            read_preference=ReadPreference.PRIMARY, read_concern=ReadConcern("majority")
        )
        self._max_bytes = max_bytes
        self.rollups: RollupWriter | None = None
        """What collects and writes the rollups of the documents, if there is something."""

    @property
    def name(self) -> str:
        """The names of database and collection."""
        return self._collection.full_name

    def prepare(self) -> None:
        """Prepare the collection for the first insert; an insert creates this one by itself."""

    def create_indexes(self, indexes: Sequence[IndexKeys]) -> None:
        """Create missing indexes. If the server refuses, log a warning and continue."""
        name = self._collection.full_name
        try:
            if indexes:
                self._collection.create_indexes([IndexModel(list(keys)) for keys in indexes])
        except NetworkTimeout:
            log.warning("%s: the server is still building indexes; queries are slow until it is done", name)
        except OperationFailure as error:
            if error.code in OUTAGES:
                raise to_tieline_error(error) from error
            log.warning("%s: indexes not created, queries will be slow: %s", name, to_tieline_error(error))
        except PyMongoError as error:
            raise to_tieline_error(error) from error

    def insert(self, documents: Sequence[Document], timeout: float | None = None) -> InsertResult:
        """Write documents with their ``_id`` and digest, and return only when they are safe.

        ``timeout`` is in seconds, if the insert may take longer than the client's own time-outs allow. Raises
        ``TooSlowError`` if an insert with fewer documents, or with more time, may succeed.
        """
        with contextlib.nullcontext() if timeout is None else pymongo.timeout(timeout):
            return self._insert_all(documents)

    def _insert_all(self, documents: Sequence[Document]) -> InsertResult:
        try:
            result = self.insert_once(documents)
        except UNENCODABLE:
            return self._insert_valid(documents)
        except OperationFailure as error:
            if error.code not in WHOLE_BATCH:
                raise to_tieline_error(error) from error
            return self._insert_valid(documents)
        except PyMongoError as error:
            raise to_tieline_error(error) from error
        large = [index for index, cause in result.failures.items() if isinstance(cause, TooLargeError)]
        if not large:
            return result
        second = self._insert_valid([documents[index] for index in large])
        failures = {index: cause for index, cause in result.failures.items() if index not in large}
        failures.update({large[index]: cause for index, cause in second.failures.items()})
        return InsertResult(result.duplicates + second.duplicates, failures, second.compacted)

    def insert_once(self, documents: Sequence[Stored]) -> InsertResult:
        """Send one insert. Raises pymongo's errors, and the runtime's for an outage."""
        try:
            self._collection.insert_many(documents, ordered=False)  # type: ignore[arg-type]
        except BulkWriteError as error:
            return self.to_result(documents, error.details)
        return InsertResult(0, {})

    def _insert_valid(self, documents: Sequence[Document]) -> InsertResult:
        """Write the valid documents of a batch in which at least one is invalid.

        Nothing was sent before, since one message holds 48 MB; documents of a larger batch may already exist,
        and count as duplicates now.
        """
        failures: dict[int, Exception] = {}
        compacted = 0
        good: list[RawBSONDocument] = []
        indexes: list[int] = []
        for index, document in enumerate(documents):
            try:
                raw = _encode(document)
            except UNENCODABLE as error:
                failures[index] = ValueError(f"cannot be written as BSON: {_problem_path(document)}{error}")
                continue
            if len(raw) > self._max_bytes:
                smaller = compact(storable(document), self._max_bytes, self._never_folded)
                if smaller is None:
                    failures[index] = ValueError(
                        f"its document has {len(raw)} bytes, and compressed still more than the server's"
                        f" limit of {self._max_bytes}. Split or shorten the record with a transform"
                    )
                    continue
                raw = smaller
                compacted += 1
            good.append(RawBSONDocument(raw))
            indexes.append(index)
        try:
            result = self._insert_by_halves(good)
        except PyMongoError as error:
            raise to_tieline_error(error) from error
        failures.update({indexes[index]: cause for index, cause in result.failures.items()})
        return InsertResult(result.duplicates, failures, compacted)

    def _insert_by_halves(self, documents: Sequence[RawBSONDocument]) -> InsertResult:
        """If the server rejects a batch as a whole, halve it until the invalid documents are found."""
        if not documents:
            return InsertResult(0, {})
        try:
            return self.insert_once(documents)
        except OperationFailure as error:
            if error.code not in WHOLE_BATCH:
                raise
            if len(documents) == 1:
                return InsertResult(0, {0: to_data_error({"code": error.code, "errmsg": str(error)})})
        middle = len(documents) // 2
        left, right = self._insert_by_halves(documents[:middle]), self._insert_by_halves(documents[middle:])
        shifted = {middle + index: cause for index, cause in right.failures.items()}
        return InsertResult(left.duplicates + right.duplicates, left.failures | shifted)

    def to_result(self, documents: Sequence[Stored], details: Mapping[str, Any]) -> InsertResult:
        """Return the result for the server's answer to an insert. Raises the runtime's errors."""
        for error in details["writeConcernErrors"]:  # written, but not yet as safe as requested
            raise error_of_code(error.get("code"), error.get("errmsg", ""))
        failures: dict[int, Exception] = {}
        clashes: dict[int, Mapping[str, Any]] = {}
        for error in details["writeErrors"]:
            code = error["code"]
            if code == DUPLICATE_KEY:
                clashes[error["index"]] = error
            elif is_server_error(code):
                raise error_of_code(code, error["errmsg"])
            else:
                failures[error["index"]] = to_data_error(error)
        stored = self._digests([documents[index]["_id"] for index in clashes])
        duplicates = 0
        for index, error in clashes.items():
            record_id, digest = documents[index]["_id"], documents[index][DIGEST]
            if record_id not in stored:
                failures[index] = _unexplained_duplicate(error)
            elif stored[record_id] == digest:
                duplicates += 1
            else:
                failures[index] = self._clash(record_id, stored[record_id], digest)
        return InsertResult(duplicates, failures)

    def _clash(self, record_id: str, stored: Any, digest: Any) -> ValueError:
        return ValueError(
            f"{self._collection.full_name} contains another record with the id {record_id!r} "
            f"(digest {stored!r}, not {digest!r}): two records have one identity"
        )

    def _digests(self, ids: Sequence[str]) -> dict[str, Any]:
        if not ids:
            return {}
        stored = self._majority.find({"_id": {"$in": list(ids)}}, {DIGEST: 1}, batch_size=len(ids) + 1)
        return {document["_id"]: document.get(DIGEST) for document in stored}


def _unexplained_duplicate(error: Mapping[str, Any]) -> Exception:
    """Return the error of a duplicate whose ``_id`` does not exist: another unique index, or just deleted."""
    pattern = error.get("keyPattern")
    if "_id" in pattern if pattern else "index: _id_" in error["errmsg"]:
        raise RetriableError("MongoDB: a document was deleted meanwhile, or is not yet safe; trying again")
    return to_data_error(error)


def _encode(document: Document) -> bytes:
    try:
        return _bson(document)
    except UNENCODABLE:
        return _bson(storable(document))


def _bson(document: Document) -> bytes:
    return bson.encode(document, codec_options=CODEC)


def _problem_path(value: Any, path: str = "") -> str:
    """Return the path of the field that BSON cannot encode, with a colon; empty if it is not a single one."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, item in items:
        try:
            _encode({"": item})
        except UNENCODABLE:
            return _problem_path(item, f"{path}.{name}" if path else str(name))
    return f"{path}: " if path else ""
