"""A sink task's changelog of one partition: plain data on the task's side, bytes on the broker's."""

from __future__ import annotations

import logging
import threading
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from tieline.api import (
    DataError,
    Datum,
    FatalError,
    FencedError,
    RetriableError,
    Schema,
    SchemaStore,
    SourceRecord,
    TielineError,
    TopicPartition,
)
from tieline.broker.port import Consumer, PartitionChangelog
from tieline.broker.records import ProducerRecord
from tieline.converters.default_codec import DefaultCodec

log = logging.getLogger(__name__)


class TakenOverError(TielineError):
    """Another task holds a partition that the group still assigns to this one; rejoin to find the owner."""


class TaskChangelog:
    """A ``tieline.api.Changelog``, through which the runtime also commits the partition's offset.

    Keys are text and values Avro. Records with a schema are Avro, others JSON, and a text key stays text.
    """

    def __init__(
        self, writer: PartitionChangelog, topic: str, schema: Schema, schemas: SchemaStore, timeout: float
    ) -> None:
        self._writer = writer
        self._topic = topic
        self._schema = schema
        self._timeout = timeout
        self._lock = threading.Lock()
        self._offset = self._attempted = -1
        self.first_partitions = 0
        self.restored_at = writer.restored_at
        self.fenced: FencedError | None = None
        """Set once another task has taken over the partition."""
        self._codec = DefaultCodec(schemas)
        self._key_codec = DefaultCodec(schemas, is_key=True)
        self._entries = {key.decode(): self._value(key, value) for key, value in writer.entries.items()}

    @property
    def entries(self) -> Mapping[str, Any]:
        """Return the latest value of each key, as of the takeover."""
        return self._entries

    @property
    def offset(self) -> int:
        """Return the position that a write has reached; -1 if none has moved it."""
        return self._offset

    def write(
        self,
        entries: Mapping[str, Any | None],
        records: Sequence[SourceRecord] = (),
        offset: int | None = None,
    ) -> None:
        """Write all of this as one, as ``Changelog.write`` promises. Any thread may call it."""
        with self._lock:
            encoded, sent = self._encode(entries, records)
            self._write(encoded, sent, offset)

    def commit(self, offset: int) -> bool:
        """Move the group's offset and nothing else; return whether something was written.

        Raises ``RetriableError``, ``FencedError``.
        """
        with self._lock:
            return self._write({}, [], offset)

    def close(self, timeout: float) -> None:
        """Close the writer. Raises ``RetriableError`` if that takes longer than ``timeout`` seconds."""
        self._writer.close(timeout)

    def _write(
        self, entries: Mapping[bytes, bytes | None], records: Sequence[ProducerRecord], offset: int | None
    ) -> bool:
        ahead = None
        if offset is not None and offset > self._offset and offset >= self._attempted:  # never back
            ahead = self._attempted = offset
        if not entries and not records and ahead is None:
            return False
        try:
            self._writer.write(entries, records, ahead, self._timeout)
        except FencedError as error:
            self.fenced = error
            raise
        if ahead is not None:
            self._offset = ahead
        return True

    def _encode(
        self, entries: Mapping[str, Any | None], records: Sequence[SourceRecord]
    ) -> tuple[dict[bytes, bytes | None], list[ProducerRecord]]:
        failures: dict[int, Exception] = {}
        encoded: dict[bytes, bytes | None] = {}
        sent: list[ProducerRecord] = []
        for index, (key, value) in enumerate(entries.items()):
            try:
                datum = Datum(self._topic, value, self._schema)
                encoded[key.encode()] = _bytes(self._codec, datum)
            except ValueError as error:
                failures[index] = error
        for index, record in enumerate(records, len(entries)):
            try:
                sent.append(self._record(record))
            except ValueError as error:
                failures[index] = error
        if failures:
            raise DataError(failures)
        return encoded, sent

    def _record(self, record: SourceRecord) -> ProducerRecord:
        topic, value, key = record.topic, record.value, record.key
        value = _bytes(self._codec, Datum(topic, value, record.value_schema))
        if not isinstance(key, str) or record.key_schema is not None:
            key = _bytes(self._key_codec, Datum(topic, key, record.key_schema))
        else:
            key = key.encode()
        return ProducerRecord(topic, value, key, record.headers, record.timestamp, record.partition)

    def _value(self, key: bytes, value: bytes) -> Any:
        """Decode an entry. One that is skipped could let the task repeat what was done already."""
        try:
            return self._codec.avro.read_as(value, self._schema)
        except ValueError as error:
            raise FatalError(f"{self._topic}: the entry {key[:100]!r} cannot be read: {error}") from error


def _bytes(codec: DefaultCodec, datum: Datum) -> bytes | None:
    """Encode a datum. ``None`` stays ``None`` whatever its schema: it deletes."""
    return None if datum.data is None else codec.encode(datum)


class TaskChangelogs:
    """The changelogs of one task, by the partitions that it owns. Used by the task's thread."""

    def __init__(self, connector: str, schemas: SchemaStore, timeout: float) -> None:
        self._connector = connector
        self._schemas = schemas
        self._timeout = timeout
        self.open: dict[TopicPartition, TaskChangelog] = {}
        """The open changelogs, by partition."""

    def take_over(
        self, consumer: Consumer, partition: TopicPartition, schema: Schema, owner: str = ""
    ) -> TaskChangelog:
        """Take over a partition's changelog, or return it if that is done. Raises ``RetriableError``.

        ``owner``: the connector under whose name it is kept; this one if empty.
        """
        changelog = self.open.get(partition)
        if changelog is None:
            topic = f"{owner or self._connector}-{partition.topic}-changelog"
            writer = consumer.changelog(topic, partition, self._timeout)
            try:
                changelog = TaskChangelog(writer, topic, schema, self._schemas, self._timeout)
            except BaseException:
                writer.close(self._timeout)
                raise
            self.open[partition] = changelog
        return changelog

    def offsets(self) -> dict[TopicPartition, int]:
        """Return the position that writes have reached in each partition."""
        return {partition: changelog.offset for partition, changelog in self.open.items()}

    def fenced(self) -> frozenset[TopicPartition]:
        """Return the partitions that another task has taken over."""
        return frozenset(p for p, changelog in self.open.items() if changelog.fenced is not None)

    def check_ownership(self, error: Exception | None = None) -> None:
        """Raise ``TakenOverError`` if another task has taken over a partition.

        ``error``: check only if this is a ``FencedError``. A thread of the task's own may have met one, too.
        """
        if error is not None and not isinstance(error, FencedError):
            return
        if fenced := self.fenced():
            names = ", ".join(sorted(f"{topic}-{partition}" for topic, partition in fenced))
            reason = str(error) if error is not None else f"{names}: another task took over the changelog"
            raise TakenOverError(reason) from error

    def close(self, partitions: Collection[TopicPartition]) -> None:
        """Close the changelogs of partitions that are not owned any more."""
        for partition in partitions:
            changelog = self.open.pop(partition, None)
            if changelog is not None:
                try:
                    changelog.close(self._timeout)
                except RetriableError as error:  # the next owner fences it
                    log.warning("a changelog could not be closed in time: %s", error)
