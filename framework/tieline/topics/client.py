"""A worker's topics, for the commands and pages of connectors."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack

from tieline.api import (
    ID_HEADER,
    DataError,
    Datum,
    RecordMetadata,
    RetriableError,
    SinkRecord,
    SourceRecord,
)
from tieline.broker.port import TopicReader
from tieline.broker.records import ConsumedRecord, ProducerRecord, Unit
from tieline.converters.default_codec import DefaultCodec
from tieline.runtime.sink.identity import RecordIdentities
from tieline.topics.decoder import Decoder, ValueFormat
from tieline.topics.session import BrokerSession

_NAME = "tieline-cli"
_BATCH = 500


class WorkerTopics:
    """A ``TopicClient`` on the broker of a session; what it opens is closed with ``at_exit``."""

    def __init__(self, session: BrokerSession, at_exit: ExitStack) -> None:
        self._session = session
        self._broker = session.broker
        self._codec = DefaultCodec(session.schemas)
        # A person waits for the answer. Records that come during one request share the next anyway.
        self._producer = session.broker.producer(_NAME, {"linger.ms": "0"})
        at_exit.callback(self._producer.close, 0)
        self._readers: set[WorkerReader] = set()
        at_exit.callback(self._close_readers)
        self._known: set[str] = set()

    def names(self) -> Collection[str]:
        """Return the names of all topics; see ``TopicClient.names``."""
        return self._broker.topics().keys()

    def send(self, records: Sequence[SourceRecord], timeout: float = 10.0) -> list[RecordMetadata]:
        """Write records, and return their positions; see ``TopicClient.send``."""
        deadline = time.monotonic() + timeout
        encoded = self._encode(records)
        for topic in sorted({record.topic for record in records} - self._known):
            self._broker.create_topic(topic, timeout=timeout)
            self._known.add(topic)
        self._producer.send(Unit(encoded))
        while (left := deadline - time.monotonic()) > 0:
            for delivery in self._producer.poll(min(left, 0.5)):
                if delivery.failures:
                    raise DataError(delivery.failures)
                return [metadata for metadata in delivery.metadata if metadata is not None]
        raise RetriableError(f"{self._session.name} has not confirmed it within {timeout:g} s")

    def reader(self, topic: str, since: int | None = None) -> WorkerReader:
        """Return a reader of a topic; see ``TopicClient.reader``."""
        reader = self._broker.reader(topic, since=since)
        decoder = Decoder(ValueFormat.AUTO, self._broker, self._session.registry)
        opened = WorkerReader(reader, decoder, self._readers.discard)
        self._readers.add(opened)
        return opened

    def record_id(self, metadata: RecordMetadata) -> str:
        """Return the id by which every sink knows a record; see ``TopicClient.record_id``."""
        identities = RecordIdentities(self._broker, lambda name, number: None)
        headers = identities.headers(ConsumedRecord(*metadata, None, None, (), 0))
        return (dict(headers)[ID_HEADER] or b"").decode("ascii")

    def _close_readers(self) -> None:
        with ExitStack() as closing:  # closes every one, even if closing another one fails
            for reader in self._readers.copy():
                closing.callback(reader.close)

    def _encode(self, records: Sequence[SourceRecord]) -> list[ProducerRecord]:
        failures: dict[int, Exception] = {}
        encoded: list[ProducerRecord] = []
        for index, record in enumerate(records):
            try:
                value = self._codec.encode(Datum(record.topic, record.value, record.value_schema))
            except ValueError as error:
                failures[index] = error
                continue
            key = None if record.key is None else str(record.key).encode()
            encoded.append(
                ProducerRecord(record.topic, value, key, record.headers, record.timestamp, record.partition)
            )
        if failures:
            raise DataError(failures)
        return encoded


class WorkerReader:
    """A ``TopicFollower`` on a reader of the broker. ``forget`` is called when it is closed."""

    def __init__(self, reader: TopicReader, decoder: Decoder, forget: Callable[[WorkerReader], None]) -> None:
        self._reader = reader
        self._decoder = decoder
        self._forget = forget
        self._is_open = True
        self._undecoded: list[ConsumedRecord] = []

    @property
    def at_end(self) -> bool:
        """Whether everything that the topic held at the start was returned; see ``TopicFollower.at_end``."""
        return self._reader.at_end and not self._undecoded

    def close(self) -> None:
        """Close the reader; see ``TopicFollower.close``."""
        if self._is_open:
            self._is_open = False
            self._forget(self)
            self._reader.close(1.0)

    def poll(self, timeout: float) -> list[SinkRecord]:
        """Return the next records, decoded; see ``TopicFollower.poll``."""
        if not self._undecoded:  # else the registry was unavailable when these arrived
            self._undecoded = self._reader.poll(_BATCH, timeout)
        decoded = self._decoder.decode(self._undecoded)
        self._undecoded = []
        return [
            SinkRecord(r.topic, r.partition, r.offset, r.value.data, r.key.data, r.headers, r.timestamp)
            for r in decoded
        ]
