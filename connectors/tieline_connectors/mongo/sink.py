"""The MongoDB sink: writes each record as one document, once, however often the record is delivered."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import NamedTuple, TypeAlias

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
from tieline_connectors.mongo.client import Client, redact
from tieline_connectors.mongo.config import Destination, MongoSinkConfig, collection_problem
from tieline_connectors.mongo.documents.layouts import DIGEST, LAYOUTS, Document, Layout, is_tombstone
from tieline_connectors.mongo.documents.publishes import Publishes
from tieline_connectors.mongo.writing.batch_state import BatchState, DocumentPosition, PendingDocument
from tieline_connectors.mongo.writing.collection import CollectionWriter, InsertResult
from tieline_connectors.mongo.writing.failures import TooSlowError, to_tieline_error
from tieline_connectors.mongo.writing.insert_size import InsertSize
from tieline_connectors.mongo.writing.rollups import RollupWriter, mark_without_rollups
from tieline_connectors.mongo.writing.timeseries import TimeSeriesWriter

log = logging.getLogger(__name__)

_SECONDS = 4.0
_PUT_SECONDS = 20.0
"""A batch that takes longer is interrupted and reported as far as it is written, so that the task keeps its
place in the group."""
_MAX_BYTES = 16 * 1024 * 1024


_Group: TypeAlias = tuple[CollectionWriter, list[PendingDocument]]
"""Documents for one collection."""


class _Route(NamedTuple):
    """The collection, layout and kinds of a topic's records."""

    writer: CollectionWriter
    layout: Layout
    publishes: Publishes


class MongoSinkTask(SinkTask[MongoSinkConfig]):
    """Writes at once: after ``put`` the records are as safe as the write concern says.

    ``flush`` writes the rollups, if they are configured. Counters:
    - ``duplicates``: documents that already exist;
    - ``compacted``: documents that were too large for MongoDB and are stored in a smaller form;
    - ``skipped.<kind>``: readings of a kind that the layout does not store;
    - ``skipped.no_points``: records without a point; ``skipped.tombstone``: records without a value;
    - ``inserts.halved``: inserts that timed out and are retried with fewer documents, or with more time if
      there was only one.
    """

    def __init__(self, context: SinkContext, config: MongoSinkConfig) -> None:
        super().__init__(context, config)
        self._client: Client = config.client()  # connects at its first use
        timeout = self._client.options.pool_options.socket_timeout or _SECONDS
        self._size = InsertSize(config.max_batch_size, timeout, config.socket_timeout_max_ms / 1000)
        self._max_bytes = _MAX_BYTES
        self._writers: dict[Destination, CollectionWriter] = {}
        self._routes: dict[str, _Route] = {}
        self._written: set[DocumentPosition] = set()
        self._layouts = {name: layout(config.options) for name, layout in LAYOUTS.items()}

    def start(self) -> None:
        """Connect, and create the indexes of a collection whose name is configured."""
        with self._translate_errors():
            hello = self._client.admin.command("hello")
            self._max_bytes = hello.get("maxBsonObjectSize", _MAX_BYTES)
            if self.config.collection:
                self._route("")

    def put(self, batch: Sequence[SinkRecord]) -> None:
        """Insert the batch by collection, with as many documents per insert as succeed in time.

        Records of a topic whose name a collection cannot have wait, without delaying others. A
        ``RetriableError`` says up to which offsets the records are written. Later documents that are written
        are remembered, and skipped when their records are delivered again.
        """
        topics = {record.topic for record in batch}
        waiting = {topic: problem for topic in topics if (problem := self._topic_problem(topic))}
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

    def _topic_problem(self, topic: str) -> str:
        """Return why a topic's records cannot be stored, with the fix; empty if they can."""
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
        state = BatchState(batch, self._written)
        try:
            with self._translate_errors():
                self._write(self._group(batch, state), state)
        except RetriableError as error:
            error.reached = state.reached()
            self._count(state.skips(error.reached))
            raise
        self._written.clear()
        self._count(state.skips())
        if state.failures:
            raise DataError(state.failures)

    def flush(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Write the rollups of what ``put`` has written.

        Offsets are committed only afterwards. If the process ends before, the records are delivered again,
        and their existing documents update the rollups.
        """
        with self._translate_errors():
            for writer in self._writers.values():
                if writer.rollups is not None:
                    writer.rollups.write()

    def close(self, partitions: Collection[TopicPartition], lost: bool) -> None:
        """Drop what is remembered of written documents."""
        self._written.clear()

    def stop(self) -> None:
        """Close the connections."""
        self._client.close()

    def _write(
        self, groups: Iterator[tuple[CollectionWriter, list[PendingDocument]]], state: BatchState
    ) -> None:
        """Write all groups. Raises ``RetriableError`` if this takes too long or the task must stop."""
        started: float | None = None
        for writer, group in groups:
            if writer.rollups is not None and writer.rollups.is_full:
                writer.rollups.write()
            position = 0
            while position < len(group):
                if started is None:
                    started = time.monotonic()
                elif self.context.stopping or time.monotonic() - started > _PUT_SECONDS:
                    raise RetriableError("MongoDB is slow; the rest of the batch follows", after=0.0)
                pending = group[position : position + self._size.documents]
                result = self._insert(writer, pending)
                state.confirm(pending, result.failures)
                if writer.rollups is not None:
                    writer.rollups.add(
                        item.document for index, item in enumerate(pending) if index not in result.failures
                    )
                self._count({"duplicates": result.duplicates, "compacted": result.compacted})
                position += len(pending)

    def _insert(self, writer: CollectionWriter, pending: Sequence[PendingDocument]) -> InsertResult:
        size = self._size
        started = time.monotonic()
        try:
            result = writer.insert(
                [item.document for item in pending],
                size.insert_timeout if size.insert_timeout > size.timeout else None,
            )
        except TooSlowError as error:
            seconds, was_limited, was_exhausted = size.insert_timeout, size.limited, size.exhausted
            size.timed_out(len(pending))
            self._count({"inserts.halved": 1})
            if not was_limited:
                log.warning(
                    "an insert of %d documents into %s failed: %s; continuing with %d per insert."
                    " If the link or the server is slow: lower max.batch.size, or raise socket.timeout.ms",
                    *(len(pending), writer.name, error, size.documents),
                )
            if was_exhausted:
                (item,) = pending
                raise RetriableError(
                    f"the document {item.document['_id']!r} got no answer within {seconds:g} s: {error}."
                    " Raise socket.timeout.max.ms if the link is too slow for a document of its size"
                ) from error
            raise RetriableError(str(error), after=1.0) from error
        was_limited = size.limited
        size.succeeded(len(pending), time.monotonic() - started)
        if was_limited and not size.limited:
            log.info("inserts of %d documents succeed again", size.documents)
        return result

    def _count(self, numbers: Mapping[str, int]) -> None:
        for name, number in numbers.items():
            if number:
                self.context.count(name, number)

    def _group(self, batch: Sequence[SinkRecord], state: BatchState) -> Iterator[_Group]:
        """Yield the documents to write, grouped by collection."""
        routes = self._routes
        groups: dict[int, _Group] = {}
        for index, record in enumerate(batch):
            writer, layout, publishes = routes.get(record.topic) or self._route(record.topic)
            documents: Mapping[str, Document] = {}
            if is_tombstone(record) and not layout.takes_tombstones:
                state.skipped[index] = "skipped.tombstone"
            elif kind := publishes.skipped(record.value):
                state.skipped[index] = f"skipped.{kind}"
            else:
                try:
                    documents = _identified_documents(record, layout)
                except ValueError as error:
                    state.failures[index] = error
                else:
                    if not documents:
                        state.skipped[index] = "skipped.no_points"
            _, group = groups.setdefault(id(writer), (writer, []))
            group += state.add(index, documents)
            if len(group) >= self._size.documents:
                yield groups.pop(id(writer))
        yield from groups.values()

    def _route(self, topic: str) -> _Route:
        """Return the route of a topic; prepares its collection at the first use."""
        destination = self.config.destination(topic)
        database, collection, layout_name = destination
        layout = self._layouts[layout_name]
        writer = self._writers.get(destination)
        if writer is None:
            writer = self._writer(database, collection, layout)
            writer.prepare()
            if self.config.create_indexes:
                writer.create_indexes(layout.indexes)
            if layout.has_points:
                self._prepare_rollups(writer, destination)
            self._writers[destination] = writer
        self._routes[topic] = _Route(writer, layout, Publishes(layout.kinds))
        return self._routes[topic]

    def _prepare_rollups(self, writer: CollectionWriter, destination: Destination) -> None:
        target = self._client[destination.database][destination.collection]
        if not self.config.rollups:
            mark_without_rollups(target)
            return
        writer.rollups = RollupWriter(target, self._size.timeout, self.config.socket_timeout_max_ms / 1000)
        writer.rollups.prepare()

    def _writer(self, database: str, collection: str, layout: Layout) -> CollectionWriter:
        target = self._client[database][collection]
        if not layout.is_time_series:
            return CollectionWriter(target, self._max_bytes)
        return TimeSeriesWriter(target, self._max_bytes, self._size.timeout)

    @contextlib.contextmanager
    def _translate_errors(self) -> Iterator[None]:
        """Raise errors as the runtime's own types, without secrets of the URI."""
        uri = self.config.connection_uri.get_secret_value()
        try:
            yield
        except (RetriableError, FatalError) as error:
            text = redact(str(error), uri)
            if isinstance(error, RetriableError):
                raise RetriableError(text, after=error.after, partitions=error.partitions) from None
            raise FatalError(text) from None
        except PyMongoError as error:
            translated = to_tieline_error(error)
            raise type(translated)(redact(str(translated), uri)) from None


def _identified_documents(record: SinkRecord, layout: Layout) -> Mapping[str, Document]:
    """Return the record's documents, each with its ``_id`` and digest. Raises ``ValueError``."""
    try:
        headers = dict(record.headers)  # the last of a repeated key, as Kafka's lastHeader
        record_id = headers[ID_HEADER].decode()  # type: ignore[union-attr]
        digest = headers[DIGEST_HEADER].decode()  # type: ignore[union-attr]
    except (KeyError, AttributeError, UnicodeDecodeError):
        raise ValueError(f"no {ID_HEADER} and {DIGEST_HEADER} in the record's headers") from None
    documents = layout.documents(record)
    for key, document in documents.items():
        document["_id"] = record_id + key
        document[DIGEST] = digest
    return documents


class MongoSink(SinkConnector[MongoSinkConfig]):
    """Runs as many tasks as ``tasks.max``; each has its own client."""

    version = "1"
    config_type = MongoSinkConfig
    task_type = MongoSinkTask
