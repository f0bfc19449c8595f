"""Writing documents whose ``_id`` and digest come from their records: a redelivery changes nothing.

Inserts, not upserts: eight times as fast where the documents are new, and nothing is ever overwritten.
An ``_id`` that is there already comes back as error 11000; the stored digest then says whether it is
the same record (counted) or another one that claims its id (a data error).
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
    TooLarge,
    about_document,
    by_code,
    is_about_the_server,
    judged,
)

log = logging.getLogger(__name__)

Stored: TypeAlias = "Mapping[str, Any]"


class Inserted(NamedTuple):
    """What became of the documents: all that ``failures`` does not name are there.

    ``compacted``: those that were too large as they were, see ``compact``.
    """

    duplicates: int
    failures: dict[int, Exception]
    compacted: int = 0


class Documents:
    """One collection, as the sink uses it. Raises ``RetriableError`` and ``Fatal``."""

    _never_folded: frozenset[str] = frozenset({"_id", DIGEST})

    def __init__(self, collection: Collection[Document], max_bytes: int) -> None:
        self._collection = collection.with_options(codec_options=CODEC)
        # what was found there must still be there after a failover
        self._majority = collection.with_options(
            read_preference=ReadPreference.PRIMARY, read_concern=ReadConcern("majority")
        )
        self._max_bytes = max_bytes

    @property
    def name(self) -> str:
        """Database and collection."""
        return self._collection.full_name

    def prepare(self) -> None:
        """Make the collection ready for a first insert: nothing to do where an insert creates it."""

    def create_indexes(self, indexes: Sequence[IndexKeys]) -> None:
        """Create those that are missing. A server that says no is only warned about: writing goes on."""
        name = self._collection.full_name
        try:
            if indexes:
                self._collection.create_indexes([IndexModel(list(keys)) for keys in indexes])
        except NetworkTimeout:
            log.warning("%s: the server takes its time to build indexes; queries are slow until then", name)
        except OperationFailure as error:
            if error.code in OUTAGES:
                raise judged(error) from error
            log.warning("%s: indexes not created, queries will be slow: %s", name, judged(error))
        except PyMongoError as error:
            raise judged(error) from error

    def insert(self, documents: Sequence[Document], patience: float | None = None) -> Inserted:
        """Write them, and return only when they are safe. Each has its ``_id`` and digest.

        ``patience``: seconds that this may last where that is more than the client's own time-outs allow.
        Raises ``TooSlow`` where fewer documents, or more patience, may get through.
        """
        with contextlib.nullcontext() if patience is None else pymongo.timeout(patience):
            return self._insert_or_sort_out(documents)

    def _insert_or_sort_out(self, documents: Sequence[Document]) -> Inserted:
        try:
            inserted = self._insert(documents)
        except UNENCODABLE:
            return self._carefully(documents)
        except OperationFailure as error:
            if error.code not in WHOLE_BATCH:
                raise judged(error) from error
            return self._carefully(documents)
        except PyMongoError as error:
            raise judged(error) from error
        large = [at for at, cause in inserted.failures.items() if isinstance(cause, TooLarge)]
        if not large:
            return inserted
        again = self._carefully([documents[at] for at in large])
        failures = {at: cause for at, cause in inserted.failures.items() if at not in large}
        failures.update({large[at]: cause for at, cause in again.failures.items()})
        return Inserted(inserted.duplicates + again.duplicates, failures, again.compacted)

    def _insert(self, documents: Sequence[Stored]) -> Inserted:
        try:
            self._collection.insert_many(documents, ordered=False)  # type: ignore[arg-type]
        except BulkWriteError as error:
            return self._sorted_out(documents, error.details)
        return Inserted(0, {})

    def _carefully(self, documents: Sequence[Document]) -> Inserted:
        """One of them cannot be written: find out which, and write all others.

        Nothing was sent before (one message holds 48 MB; of a larger batch some may be there already,
        and count as duplicates now).
        """
        failures: dict[int, Exception] = {}
        compacted = 0
        good: list[RawBSONDocument] = []
        indexes: list[int] = []
        for index, document in enumerate(documents):
            try:
                raw = _encoded(document)
            except UNENCODABLE as error:
                failures[index] = ValueError(f"cannot be written as BSON: {_blamed(document)}{error}")
                continue
            if len(raw) > self._max_bytes:
                smaller = compact(storable(document), self._max_bytes, self._never_folded)
                if smaller is None:
                    failures[index] = ValueError(
                        f"its document has {len(raw)} bytes, and compressed still more than"
                        f" {self._max_bytes}, the most that the server takes. Split or shorten the record"
                        " with a transform"
                    )
                    continue
                raw = smaller
                compacted += 1
            good.append(RawBSONDocument(raw))
            indexes.append(index)
        try:
            inserted = self._halving(good)
        except PyMongoError as error:
            raise judged(error) from error
        failures.update({indexes[at]: cause for at, cause in inserted.failures.items()})
        return Inserted(inserted.duplicates, failures, compacted)

    def _halving(self, documents: Sequence[RawBSONDocument]) -> Inserted:
        """Where the server refuses a batch as a whole, halve it until only the culprits are left."""
        if not documents:
            return Inserted(0, {})
        try:
            return self._insert(documents)
        except OperationFailure as error:
            if error.code not in WHOLE_BATCH:
                raise
            if len(documents) == 1:
                return Inserted(0, {0: about_document({"code": error.code, "errmsg": str(error)})})
        middle = len(documents) // 2
        left, right = self._halving(documents[:middle]), self._halving(documents[middle:])
        shifted = {middle + at: cause for at, cause in right.failures.items()}
        return Inserted(left.duplicates + right.duplicates, left.failures | shifted)

    def _sorted_out(self, documents: Sequence[Stored], details: Mapping[str, Any]) -> Inserted:
        """The server's answer, document by document."""
        for error in details["writeConcernErrors"]:  # written, but not yet as safe as asked for
            raise by_code(error.get("code"), error.get("errmsg", ""))
        failures: dict[int, Exception] = {}
        clashes: dict[int, Mapping[str, Any]] = {}
        for error in details["writeErrors"]:
            code = error["code"]
            if code == DUPLICATE_KEY:
                clashes[error["index"]] = error
            elif is_about_the_server(code):
                raise by_code(code, error["errmsg"])
            else:
                failures[error["index"]] = about_document(error)
        stored = self._digests([documents[index]["_id"] for index in clashes])
        duplicates = 0
        for index, error in clashes.items():
            record_id, digest = documents[index]["_id"], documents[index][DIGEST]
            if record_id not in stored:
                failures[index] = _not_by_id(error)
            elif stored[record_id] == digest:
                duplicates += 1
            else:
                failures[index] = self._clash(record_id, stored[record_id], digest)
        return Inserted(duplicates, failures)

    def _clash(self, record_id: str, stored: Any, digest: Any) -> ValueError:
        return ValueError(
            f"{self._collection.full_name} holds another record under its id {record_id!r} "
            f"(digest {stored!r}, not {digest!r}): two records claim one identity"
        )

    def _digests(self, ids: Sequence[str]) -> dict[str, Any]:
        if not ids:
            return {}
        found = self._majority.find({"_id": {"$in": list(ids)}}, {DIGEST: 1}, batch_size=len(ids) + 1)
        return {document["_id"]: document.get(DIGEST) for document in found}


def _not_by_id(error: Mapping[str, Any]) -> Exception:
    """Error 11000 on a document whose id is not there: an index of the user's, or it has just gone."""
    pattern = error.get("keyPattern")
    if "_id" in pattern if pattern else "index: _id_" in error["errmsg"]:
        raise RetriableError("MongoDB: a document was there and has gone, or is not yet safe; trying again")
    return about_document(error)


def _encoded(document: Document) -> bytes:
    try:
        return _bson(document)
    except UNENCODABLE:
        return _bson(storable(document))


def _bson(document: Document) -> bytes:
    return bson.encode(document, codec_options=CODEC)


def _blamed(value: Any, path: str = "") -> str:
    """The field that BSON has no place for, before a colon; nothing where no single one is to blame."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, item in items:
        try:
            _encoded({"": item})
        except UNENCODABLE:
            return _blamed(item, f"{path}.{name}" if path else str(name))
    return f"{path}: " if path else ""
