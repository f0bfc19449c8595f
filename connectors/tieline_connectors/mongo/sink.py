"""The MongoDB sink: every record one document, the same one however often it comes."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

from pymongo.errors import PyMongoError

from tieline.api import (
    DIGEST_HEADER,
    ID_HEADER,
    DataError,
    FatalError,
    RetriableError,
    SinkConnector,
    SinkContext,
    SinkRecord,
    SinkTask,
    TopicPartition,
)
from tieline_connectors.mongo.client import Client, redacted
from tieline_connectors.mongo.config import Destination, MongoSinkConfig, collection_problem
from tieline_connectors.mongo.documents.layouts import DIGEST, LAYOUTS, Document, Layout, is_tombstone
from tieline_connectors.mongo.documents.publishes import Publishes
from tieline_connectors.mongo.writing.collection import Documents, Inserted
from tieline_connectors.mongo.writing.failures import TooSlow, judged
from tieline_connectors.mongo.writing.offered import Offered, Piece, Place
from tieline_connectors.mongo.writing.sizing import InsertSize
from tieline_connectors.mongo.writing.timeseries import TimeSeries

log = logging.getLogger(__name__)

_SECONDS = 4.0
_PUT_SECONDS = 20.0
"""A batch that lasts longer is handed back with what is written, so that the group keeps its member."""
_MAX_BYTES = 16 * 1024 * 1024


class _Route(NamedTuple):
    """What becomes of a topic's records."""

    documents: Documents
    layout: Layout
    publishes: Publishes


class MongoSinkTask(SinkTask[MongoSinkConfig]):
    """Writes at once: what ``put`` has returned from is as safe as the write concern says.

    So ``flush`` has nothing to do. Counters: ``duplicates``, documents that were there already;
    ``compacted``, those that were too large for MongoDB as they were;
    ``skipped.<kind>``, readings of a kind that the layout does not take; ``skipped.no_points``, records
    without anything that it could store; ``skipped.tombstone``, records without a value;
    ``inserts.halved``, inserts that did not get through and are tried again with fewer documents (or, of a
    single one, more time).
    """

    def __init__(self, context: SinkContext, config: MongoSinkConfig) -> None:
        super().__init__(context, config)
        self._client: Client | None = None
        self._size = InsertSize(config.max_batch_size, _SECONDS, config.socket_timeout_max_ms / 1000)
        self._max_bytes = _MAX_BYTES
        self._collections: dict[Destination, Documents] = {}
        self._routes: dict[str, _Route] = {}
        self._written: set[Place] = set()
        self._layouts = {name: layout(config.options) for name, layout in LAYOUTS.items()}

    def start(self) -> None:
        """Find the server, and create the indexes of a collection whose name is known already."""
        self.stop()
        config = self.config
        with self._told():
            self._client = config.client()
            timeout = self._client.options.pool_options.socket_timeout or _SECONDS
            self._size = InsertSize(config.max_batch_size, timeout, config.socket_timeout_max_ms / 1000)
            hello = self._client.admin.command("hello")
            self._max_bytes = hello.get("maxBsonObjectSize", _MAX_BYTES)
            if config.collection:
                self._route("")

    def put(self, batch: Sequence[SinkRecord]) -> None:
        """Insert the batch, collection by collection, as many documents at once as get through in time.

        The records of a topic that no collection can be named after wait, and hold up no others. A
        ``RetriableError`` says up to where the records are written; documents behind it that are written are
        remembered, and not written again when their records come again.
        """
        waiting = {topic: why for topic in {r.topic for r in batch} if (why := self._misplaced(topic))}
        if not waiting:
            self._put(batch)
            return
        placed = [index for index, record in enumerate(batch) if record.topic not in waiting]
        try:
            if placed:
                self._put([batch[index] for index in placed])
        except DataError as error:
            failures = {placed[index]: cause for index, cause in error.failures.items()}
            others = set(range(len(batch))) - set(placed)
            raise DataError(failures | {i: ValueError(waiting[batch[i].topic]) for i in others}) from error
        partitions = {record.consumed_from for record in batch if record.topic in waiting}
        raise RetriableError("; ".join(sorted(waiting.values())), partitions=partitions)

    def _misplaced(self, topic: str) -> str:
        """Why the records of a topic have no place, and the fix; empty: they have one."""
        if topic in self._routes:
            return ""
        destination = self.config.destination(topic)
        if not (problem := collection_problem(destination.collection)):
            return ""
        return (
            f"the topic {topic!r} cannot be stored in the collection {destination.collection!r}: {problem}."
            f" Set topic.override.{topic}.collection, or leave the topic out of the sink's topics"
        )

    def _put(self, batch: Sequence[SinkRecord]) -> None:
        offered = Offered(batch, self._written)
        try:
            with self._told():
                self._write(self._grouped(batch, offered), offered)
        except RetriableError as error:
            error.reached = offered.reached()
            self._count(offered.skips(error.reached))
            raise
        self._written.clear()
        self._count(offered.skips())
        if offered.failures:
            raise DataError(offered.failures)

    def close(self, partitions: Collection[TopicPartition], lost: bool) -> None:
        """What of their records is written already is not remembered."""
        self._written.clear()

    def stop(self) -> None:
        """Close the connections."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def _write(self, groups: Iterator[tuple[Documents, list[Piece]]], offered: Offered) -> None:
        """Write all groups. Raises ``RetriableError`` if this takes too long or the task must stop."""
        started: float | None = None
        for documents, group in groups:
            at = 0
            while at < len(group):
                if started is None:
                    started = time.monotonic()
                elif self.context.stopping or time.monotonic() - started > _PUT_SECONDS:
                    raise RetriableError(
                        "MongoDB takes documents slowly; the rest of the batch follows", after=0.0
                    )
                pieces = group[at : at + self._size.documents]
                inserted = self._insert(documents, pieces)
                offered.confirm(pieces, inserted.failures)
                self._count({"duplicates": inserted.duplicates, "compacted": inserted.compacted})
                at += len(pieces)

    def _insert(self, documents: Documents, pieces: Sequence[Piece]) -> Inserted:
        size = self._size
        started = time.monotonic()
        try:
            inserted = documents.insert(
                [piece.document for piece in pieces],
                size.patience if size.patience > size.timeout else None,
            )
        except TooSlow as error:
            seconds, was_limited, was_exhausted = size.patience, size.limited, size.exhausted
            size.timed_out(len(pieces))
            self._count({"inserts.halved": 1})
            if not was_limited:
                log.warning(
                    "an insert of %d documents into %s did not get through: %s; continuing with %d at once."
                    " If the link or the server is slow: lower max.batch.size, or raise socket.timeout.ms",
                    *(len(pieces), documents.name, error, size.documents),
                )
            if was_exhausted:
                (piece,) = pieces
                raise RetriableError(
                    f"the document {piece.document['_id']!r} got no answer within {seconds:g} s: {error}."
                    " Raise socket.timeout.max.ms if the link carries no document of its size in that time"
                ) from error
            raise RetriableError(str(error), after=1.0) from error
        was_limited = size.limited
        size.succeeded(len(pieces), time.monotonic() - started)
        if was_limited and not size.limited:
            log.info("inserts of %d documents at once get through again", size.documents)
        return inserted

    def _count(self, numbers: Mapping[str, int]) -> None:
        for name, number in numbers.items():
            if number:
                self.context.count(name, number)

    def _grouped(
        self, batch: Sequence[SinkRecord], offered: Offered
    ) -> Iterator[tuple[Documents, list[Piece]]]:
        """What goes into one collection at once."""
        routes = self._routes
        groups: dict[int, tuple[Documents, list[Piece]]] = {}
        for index, record in enumerate(batch):
            documents, layout, publishes = routes.get(record.topic) or self._route(record.topic)
            made: Mapping[str, Document] = {}
            if is_tombstone(record) and not layout.takes_tombstones:
                offered.skipped[index] = "skipped.tombstone"
            elif kind := publishes.skipped(record.value):
                offered.skipped[index] = f"skipped.{kind}"
            else:
                try:
                    made = _identified(record, layout)
                except ValueError as error:
                    offered.failures[index] = error
                else:
                    if not made:
                        offered.skipped[index] = "skipped.no_points"
            pieces = offered.pieces(index, made)
            _, group = groups.setdefault(id(documents), (documents, []))
            group += pieces
            if len(group) >= self._size.documents:
                yield groups.pop(id(documents))
        yield from groups.values()

    def _route(self, topic: str) -> _Route:
        """Where a topic's records go; its collection is made ready when it is first met."""
        assert self._client is not None
        destination = self.config.destination(topic)
        database, collection, layout_name = destination
        layout = self._layouts[layout_name]
        documents = self._collections.get(destination)
        if documents is None:
            documents = self._documents(database, collection, layout)
            documents.prepare()
            if self.config.create_indexes:
                documents.create_indexes(layout.indexes)
            self._collections[destination] = documents
        self._routes[topic] = _Route(documents, layout, Publishes(layout.kinds))
        return self._routes[topic]

    def _documents(self, database: str, collection: str, layout: Layout) -> Documents:
        assert self._client is not None
        found = self._client[database][collection]
        if not layout.is_time_series:
            return Documents(found, self._max_bytes)
        return TimeSeries(found, self._max_bytes, self._size.timeout)

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """Errors in the runtime's terms, and never with a secret of the URI."""
        uri = self.config.connection_uri.get_secret_value()
        try:
            yield
        except (RetriableError, FatalError) as error:
            text = redacted(str(error), uri)
            if isinstance(error, RetriableError):
                raise RetriableError(text, after=error.after, partitions=error.partitions) from None
            raise FatalError(text) from None
        except PyMongoError as error:
            answer = judged(error)
            raise type(answer)(redacted(str(answer), uri)) from None


def _identified(record: SinkRecord, layout: Layout) -> Mapping[str, Document]:
    """The record's documents, each with its ``_id`` and digest. Raises ``ValueError``."""
    try:
        headers = dict(record.headers)  # of a repeated key the last, as Kafka's lastHeader
        own = headers[ID_HEADER].decode()  # type: ignore[union-attr]
        digest = headers[DIGEST_HEADER].decode()  # type: ignore[union-attr]
    except (KeyError, AttributeError, UnicodeDecodeError):
        raise ValueError(f"no {ID_HEADER} and {DIGEST_HEADER} in the record's headers") from None
    made = layout.documents(record)
    for key, document in made.items():
        document["_id"] = own + key
        document[DIGEST] = digest
    return made


class MongoSink(SinkConnector[MongoSinkConfig]):
    """As many tasks as ``tasks.max``; each has a client of its own."""

    version = "1"
    config_type = MongoSinkConfig
    task_type = MongoSinkTask
