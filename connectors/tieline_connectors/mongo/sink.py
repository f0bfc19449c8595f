"""The MongoDB sink: every record one document, the same one however often it comes."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from pymongo.errors import PyMongoError

from tieline.api import (
    DIGEST_HEADER,
    ID_HEADER,
    DataError,
    Fatal,
    Retriable,
    SinkConnector,
    SinkContext,
    SinkRecord,
    SinkTask,
)
from tieline_connectors.mongo.client import Client, redacted
from tieline_connectors.mongo.collection import Documents
from tieline_connectors.mongo.config import Destination, MongoSinkConfig
from tieline_connectors.mongo.failures import judged
from tieline_connectors.mongo.layouts import DIGEST, LAYOUTS, Document, Layout
from tieline_connectors.mongo.publishes import Publishes
from tieline_connectors.mongo.timeseries import TimeSeries

_SECONDS = 4.0
_MAX_BYTES = 16 * 1024 * 1024


class _Route(NamedTuple):
    """What becomes of a topic's records."""

    documents: Documents
    layout: Layout
    publishes: Publishes


class MongoSinkTask(SinkTask[MongoSinkConfig]):
    """Writes at once: what ``put`` has returned from is as safe as the write concern says.

    So ``flush`` has nothing to do. Counters: ``duplicates``, documents that were there already;
    ``skipped.<kind>``, readings of a kind that the layout does not take; ``skipped.no_points``, records
    without anything that it could store.
    """

    _client: Client | None = None

    def start(self, context: SinkContext, config: MongoSinkConfig) -> None:
        """Find the server, and create the indexes of a collection whose name is known already."""
        self.shutdown()
        self._context = context
        self._config = config
        self._max_bytes = _MAX_BYTES
        self._collections: dict[Destination, Documents] = {}
        self._routes: dict[str, _Route] = {}
        self._layouts = {name: layout(config.options) for name, layout in LAYOUTS.items()}
        with self._told():
            self._client = config.client()
            hello = self._client.admin.command("hello")
            self._max_bytes = hello.get("maxBsonObjectSize", _MAX_BYTES)
            if config.collection:
                self._route("")

    def put(self, batch: Sequence[SinkRecord]) -> None:
        """Insert the batch, collection by collection.

        A ``Retriable`` counts nothing as written; what was, is met again as a duplicate.
        """
        failures: dict[int, Exception] = {}
        counted: Counter[str] = Counter()
        with self._told():
            for documents, indexes, content in self._grouped(batch, failures, counted):
                inserted = documents.insert(content)
                counted["duplicates"] += inserted.duplicates
                failures.update({indexes[at]: cause for at, cause in inserted.failures.items()})
        for name, number in counted.items():
            if number:
                self._context.count(name, number)
        if failures:
            raise DataError(failures)

    def shutdown(self) -> None:
        """Close the connections."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def _grouped(
        self, batch: Sequence[SinkRecord], failures: dict[int, Exception], counted: Counter[str]
    ) -> Iterator[tuple[Documents, list[int], list[Document]]]:
        """What goes into one collection at once, with the index of each document's record in the batch."""
        routes, most = self._routes, self._config.max_batch_size
        groups: dict[int, tuple[Documents, list[int], list[Document]]] = {}
        for index, record in enumerate(batch):
            documents, layout, publishes = routes.get(record.topic) or self._route(record.topic)
            if kind := publishes.skipped(record.value):
                counted[f"skipped.{kind}"] += 1
                continue
            try:
                headers = dict(record.headers)  # of a repeated key the last, as Kafka's lastHeader
                own = headers[ID_HEADER].decode()  # type: ignore[union-attr]
                digest = headers[DIGEST_HEADER].decode()  # type: ignore[union-attr]
            except (KeyError, AttributeError, UnicodeDecodeError):
                failures[index] = ValueError(f"no {ID_HEADER} and {DIGEST_HEADER} in the record's headers")
                continue
            try:
                made = layout.documents(record)
            except ValueError as error:
                failures[index] = error
                continue
            if not made:
                counted["skipped.no_points"] += 1
            group = groups.get(id(documents))
            if group is None:
                group = groups[id(documents)] = documents, [], []
            for key, document in made.items():
                document["_id"] = own + key
                document[DIGEST] = digest
                group[1].append(index)
                group[2].append(document)
            if len(group[1]) >= most:
                yield groups.pop(id(documents))
        yield from groups.values()

    def _route(self, topic: str) -> _Route:
        """Where a topic's records go; its collection is made ready when it is first met."""
        assert self._client is not None
        destination = self._config.destination(topic)
        database, collection, layout_name = destination
        layout = self._layouts[layout_name]
        documents = self._collections.get(destination)
        if documents is None:
            documents = self._documents(database, collection, layout)
            documents.prepare()
            if self._config.create_indexes:
                documents.create_indexes(layout.indexes)
            self._collections[destination] = documents
        self._routes[topic] = _Route(documents, layout, Publishes(layout.kinds))
        return self._routes[topic]

    def _documents(self, database: str, collection: str, layout: Layout) -> Documents:
        assert self._client is not None
        found = self._client[database][collection]
        if not layout.is_time_series:
            return Documents(found, self._max_bytes)
        timeout = self._client.options.pool_options.socket_timeout or _SECONDS
        return TimeSeries(found, self._max_bytes, timeout)

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """Errors in the runtime's terms, and never with a secret of the URI."""
        uri = self._config.connection_uri.get_secret_value()
        try:
            yield
        except (Retriable, Fatal) as error:
            text = redacted(str(error), uri)
            if isinstance(error, Retriable):
                raise Retriable(text, after=error.after, partitions=error.partitions) from None
            raise Fatal(text) from None
        except PyMongoError as error:
            answer = judged(error)
            raise type(answer)(redacted(str(answer), uri)) from None


class MongoSink(SinkConnector[MongoSinkConfig]):
    """As many tasks as ``tasks.max``; each has a client of its own."""

    version = "1"
    config_type = MongoSinkConfig
    task_type = MongoSinkTask
