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
    TopicPartition,
)
from tieline.broker.port import Consumer, PartitionChangelog, ProducerRecord
from tieline.converters.default_codec import DefaultCodec

log = logging.getLogger(__name__)


class TaskChangelog:
    """See ``tieline.api.Changelog``; the runtime commits this partition's offsets through it, too.

    Keys are text, values Avro; records with a schema are Avro, without one JSON, and a key that is text
    is text.
    """

    def __init__(
        self, writer: PartitionChangelog, topic: str, schema: Schema, schemas: SchemaStore, timeout: float
    ) -> None:
        self._writer = writer
        self._topic = topic
        self._schema = schema
        self._timeout = timeout
        self._lock = threading.Lock()
        self._offset = self._tried = -1
        self.first_partitions = 0
        self.fenced: FencedError | None = None
        """Set once the partition was taken over by somebody else."""
        self._form = DefaultCodec(schemas)
        self._form_of_keys = DefaultCodec(schemas, is_key=True)
        self._entries = {key.decode(): self._value(key, value) for key, value in writer.entries.items()}

    @property
    def entries(self) -> Mapping[str, Any]:
        """See ``Changelog.entries``."""
        return self._entries

    @property
    def offset(self) -> int:
        """The position that a write has reached; -1: none has moved it."""
        return self._offset

    def write(
        self,
        entries: Mapping[str, Any | None],
        records: Sequence[SourceRecord] = (),
        offset: int | None = None,
    ) -> None:
        """See ``Changelog.write``."""
        with self._lock:
            coded, sent = self._coded(entries, records)
            self._write(coded, sent, offset)

    def commit(self, offset: int) -> None:
        """Move the group's offset and nothing else. Raises ``RetriableError``, ``FencedError``."""
        with self._lock:
            self._write({}, [], offset)

    def close(self, timeout: float) -> None:
        """See ``PartitionChangelog.close``."""
        self._writer.close(timeout)

    def _write(
        self, entries: Mapping[bytes, bytes | None], records: Sequence[ProducerRecord], offset: int | None
    ) -> None:
        ahead = None
        if offset is not None and offset > self._offset and offset >= self._tried:  # never back
            ahead = self._tried = offset
        if not entries and not records and ahead is None:
            return
        try:
            self._writer.write(entries, records, ahead, self._timeout)
        except FencedError as error:
            self.fenced = error
            raise
        if ahead is not None:
            self._offset = ahead

    def _coded(
        self, entries: Mapping[str, Any | None], records: Sequence[SourceRecord]
    ) -> tuple[dict[bytes, bytes | None], list[ProducerRecord]]:
        failures: dict[int, Exception] = {}
        coded: dict[bytes, bytes | None] = {}
        sent: list[ProducerRecord] = []
        for index, (key, value) in enumerate(entries.items()):
            try:
                datum = Datum(self._topic, value, self._schema)
                coded[key.encode()] = _bytes(self._form, datum)
            except ValueError as error:
                failures[index] = error
        for index, record in enumerate(records, len(entries)):
            try:
                sent.append(self._record(record))
            except ValueError as error:
                failures[index] = error
        if failures:
            raise DataError(failures)
        return coded, sent

    def _record(self, record: SourceRecord) -> ProducerRecord:
        topic, value, key = record.topic, record.value, record.key
        value = _bytes(self._form, Datum(topic, value, record.value_schema))
        if not isinstance(key, str) or record.key_schema is not None:
            key = _bytes(self._form_of_keys, Datum(topic, key, record.key_schema))
        else:
            key = key.encode()
        return ProducerRecord(topic, value, key, record.headers, record.timestamp, record.partition)

    def _value(self, key: bytes, value: bytes) -> Any:
        """To pass over what cannot be read could do again what is done."""
        try:
            return self._form.avro.read_as(value, self._schema)
        except ValueError as error:
            raise FatalError(f"{self._topic}: the entry {key[:100]!r} cannot be read: {error}") from error


def _bytes(form: DefaultCodec, datum: Datum) -> bytes | None:
    """Null is null, whatever its schema: it deletes."""
    return None if datum.data is None else form.encode(datum)


class TaskChangelogs:
    """The changelogs of one task, by the partitions that it owns. Used by the task's thread."""

    def __init__(self, connector: str, schemas: SchemaStore, timeout: float) -> None:
        self._connector = connector
        self._schemas = schemas
        self._timeout = timeout
        self.open: dict[TopicPartition, TaskChangelog] = {}
        """By the partition."""

    def take_over(
        self, consumer: Consumer, partition: TopicPartition, schema: Schema, owner: str = ""
    ) -> TaskChangelog:
        """That of a partition; the same one where ``open`` is repeated. Raises ``RetriableError``.

        ``owner``: the connector under whose name it is kept; empty: this one.
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
        """Where writes have brought each partition."""
        return {at: changelog.offset for at, changelog in self.open.items()}

    def fenced(self) -> frozenset[TopicPartition]:
        """Those that somebody else has taken over."""
        return frozenset(at for at, changelog in self.open.items() if changelog.fenced is not None)

    def close(self, partitions: Collection[TopicPartition]) -> None:
        """Let those of partitions go that are not owned any more."""
        for partition in partitions:
            changelog = self.open.pop(partition, None)
            if changelog is not None:
                try:
                    changelog.close(self._timeout)
                except RetriableError as error:  # the next owner fences it
                    log.warning("a changelog could not be let go in time: %s", error)
