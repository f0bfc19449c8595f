"""⑧ converters and ⑨ transforms on the sink side: what a topic holds to sink records."""

from __future__ import annotations

import functools
import hashlib
import logging
import operator
import time
from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from tieline.api import (
    DIGEST_HEADER,
    ID_HEADER,
    Converter,
    DataError,
    Datum,
    Encoded,
    Headers,
    RetriableError,
    SinkRecord,
    Unreadable,
    identity,
)
from tieline.api.record import rows
from tieline.broker.port import UNREADABLE_HEADERS, Broker, ConsumedRecord
from tieline.runtime.errors.retry import StageError
from tieline.runtime.errors.table import Stage
from tieline.runtime.task.timestamps import as_written
from tieline.runtime.task.transform_chain import TransformChain

log = logging.getLogger(__name__)

_KNOWN_FOR = 5.0
"""Seconds until it is asked again how many partitions topics have."""
_ASK_FOR = 2.0
"""Seconds that the broker has to say so; what is known holds on without an answer."""
_place = operator.attrgetter("partition", "offset", "original_topic")


class Converted(NamedTuple):
    """The batch for ``put``, the index in the consumed batch of each record, and what failed, by index.

    ``unreadable``: those of the failures whose bytes no converter can read.
    """

    records: Sequence[SinkRecord]
    indexes: Sequence[int]
    stage: Stage
    failures: dict[int, Exception]
    unreadable: frozenset[int] = frozenset()

    def part(self, start: int, stop: int) -> Converted:
        """The same of a part of the batch, with the indexes of that part."""
        first, last = bisect_left(self.indexes, start), bisect_left(self.indexes, stop)
        failures = {i - start: cause for i, cause in self.failures.items() if start <= i < stop}
        indexes = [index - start for index in self.indexes[first:last]]
        return Converted(self.records[first:last], indexes, self.stage, failures)


class SinkConversion:
    """Makes consumed records ready for a sink; used by one thread.

    A record that carries no identity was made by somebody else: it is known by (cluster, topic's id,
    partition, offset), so that a topic made anew under an old name is not taken for the old one.

    Most sinks need no key, and a key that cannot be read must not stop them: it is handed on as bytes,
    counted (``keys.unreadable``) and reported once. Headers that cannot be read are left out, counted
    (``headers.unreadable``) and reported once.
    """

    def __init__(
        self,
        broker: Broker,
        transforms: TransformChain,
        key: Converter[Any],
        value: Converter[Any],
        count: Callable[[str, int], None] = lambda name, number: None,
    ) -> None:
        self._broker = broker
        self._transforms = transforms
        self._key = key
        self._value = value
        self._count = count
        self._has_told_of_keys = self._has_told_of_headers = False
        self.consumed_id: Callable[[str], str | None] = lambda topic: None
        """The id of the topic whose records are converted; the broker may have another one by now."""
        self._topic_ids: dict[str, str] = {}
        self._origins: dict[tuple[str, int], bytes] = {}
        self._partitions: dict[str, int] = {}
        self._asked_at = -_KNOWN_FOR

    @functools.cached_property
    def _cluster_id(self) -> str:
        return self._broker.cluster_id

    def convert(self, batch: Sequence[ConsumedRecord]) -> Converted:
        """Data errors are returned beside what is good. Raises ``StageError`` for all other errors."""
        indexes: Sequence[int] = range(len(batch))
        if not batch:
            return Converted([], indexes, Stage.VALUE_CONVERTER, {})
        batch = [as_written(record) for record in batch]
        topics, partitions, offsets, raw_values, raw_keys, _, timestamps = zip(*batch, strict=True)
        encoded_keys = rows(Encoded, topics, raw_keys)
        keys, unreadable_keys = self._deserialized(Stage.KEY_CONVERTER, self._key, encoded_keys)
        if unreadable_keys:
            keys = self._as_bytes(batch, keys, unreadable_keys)
        stage = Stage.VALUE_CONVERTER
        values, failures = self._deserialized(stage, self._value, rows(Encoded, topics, raw_values))
        _, key_data, key_schemas = zip(*keys, strict=True)
        _, value_data, value_schemas = zip(*values, strict=True)
        headers = map(self._with_identity, batch)
        where = topics, partitions, offsets
        records = rows(
            SinkRecord, *where, value_data, key_data, headers, timestamps, value_schemas, key_schemas, topics
        )
        unreadable = frozenset(failures)
        if failures:
            indexes = [index for index in indexes if index not in failures]
            records = [records[index] for index in indexes]
        kept, at, bad = self._transformed(records)
        if bad:
            stage, failures = Stage.TRANSFORMATION, failures | {indexes[i]: cause for i, cause in bad.items()}
        return Converted(kept, [indexes[i] for i in at], stage, failures, unreadable)

    def _transformed(
        self, records: Sequence[SinkRecord]
    ) -> tuple[Sequence[SinkRecord], Sequence[int], dict[int, Exception]]:
        """What is left, the index of each, and what failed; without that the others are tried again."""
        failures: dict[int, Exception] = {}
        good: Sequence[int] = range(len(records))
        while True:
            try:
                kept, at = self._transforms.apply([records[i] for i in good] if failures else records)
            except StageError as error:
                if not isinstance(error.error, DataError) or not error.error.failures:
                    raise
                failures |= {good[i]: cause for i, cause in error.error.failures.items()}
                good = [i for i in good if i not in failures]
                continue
            if kept is records:  # no transform
                return records, at, failures
            at = [good[i] for i in at]
            return [_in_place(r, records[i]) for r, i in zip(kept, at, strict=True)], at, failures

    def unread(self, record: ConsumedRecord) -> SinkRecord:
        """A record as it came, its key and value in bytes; with its identity. Raises ``StageError``."""
        record = as_written(record)
        topic, partition, offset, value, key, _, timestamp = record
        return SinkRecord(topic, partition, offset, value, key, self._with_identity(record), timestamp)

    def with_unreadable(self, converted: Converted, batch: Sequence[ConsumedRecord]) -> Converted:
        """The same with what no converter can read among the records. Raises ``StageError``."""
        if not converted.unreadable:
            return converted
        failures = dict(converted.failures)
        both = dict(zip(converted.indexes, converted.records, strict=True))
        for index in converted.unreadable:
            record = self.unread(batch[index])
            both[index] = record._replace(value=Unreadable(record.value, failures.pop(index)))
        indexes = sorted(both)
        return Converted([both[index] for index in indexes], indexes, converted.stage, failures)

    def forget_topics(self) -> None:
        """Called at each assignment: a topic may have been made anew under its old name."""
        self._topic_ids = {}
        self._origins = {}

    def stop(self) -> None:
        """Called once, at the end of the task."""
        self._transforms.stop()

    def _deserialized(
        self, stage: Stage, converter: Converter[Any], batch: Sequence[Encoded]
    ) -> tuple[Sequence[Datum], dict[int, Exception]]:
        try:
            data = converter.deserialize(batch)
            if len(data) != len(batch):
                raise TypeError(f"{type(converter).__name__} made {len(data)} values of {len(batch)}")
            return data, {}
        except DataError as error:
            failures = error.failures
        except Exception as error:
            raise StageError(stage, error) from error
        good = [index for index in range(len(batch)) if index not in failures]
        filled: list[Datum] = [Datum(encoded.topic, None) for encoded in batch]
        for index, datum in zip(good, converter.deserialize([batch[i] for i in good]), strict=True):
            filled[index] = datum
        return filled, failures

    def _as_bytes(
        self, batch: Sequence[ConsumedRecord], keys: Sequence[Datum], unreadable: dict[int, Exception]
    ) -> list[Datum]:
        self._count("keys.unreadable", len(unreadable))
        if not self._has_told_of_keys:
            self._has_told_of_keys = True
            record = batch[min(unreadable)]
            log.warning(
                "keys that key.converter cannot read are handed on as bytes, the first at %s-%d@%d: %s."
                " If the keys are needed, correct key.converter",
                *(record.topic, record.partition, record.offset, unreadable[min(unreadable)]),
            )
        return [
            Datum(record.topic, record.key) if index in unreadable else key
            for index, (record, key) in enumerate(zip(batch, keys, strict=True))
        ]

    def _with_identity(self, record: ConsumedRecord) -> Headers:
        headers = record.headers
        names = {name for name, _ in headers} if headers else ()
        if headers == UNREADABLE_HEADERS:
            self._tell_of_headers(record)
        if ID_HEADER in names and DIGEST_HEADER in names:
            return headers
        added: list[tuple[str, bytes | None]] = []
        if ID_HEADER not in names:
            origin = self._origins.get((record.topic, record.partition)) or self._origin(record)
            added.append((ID_HEADER, b"%b-%d" % (origin, record.offset)))
        if DIGEST_HEADER not in names:
            content = (record.value or b"") + (record.key or b"")
            digest = hashlib.blake2b(content, person=b"tieline value", digest_size=16)
            added.append((DIGEST_HEADER, digest.hexdigest().encode()))
        return (*headers, *added)

    def _tell_of_headers(self, record: ConsumedRecord) -> None:
        self._count("headers.unreadable", 1)
        if not self._has_told_of_headers:
            self._has_told_of_headers = True
            log.warning(
                "headers that cannot be read (a name that is not UTF-8, or a damaged disk) are left out,"
                " the first at %s-%d@%d; their records go on without them",
                *(record.topic, record.partition, record.offset),
            )

    def _origin(self, record: ConsumedRecord) -> bytes:
        """What tells a partition from all others, for ever; once a partition."""
        hashed = identity(self._cluster_id, self._topic_id(record.topic), record.partition)
        origin = self._origins[record.topic, record.partition] = dict(hashed)[ID_HEADER] or b""
        return origin

    def partitions(self, topic: str) -> int:
        """How many partitions a topic has, as the broker said last. Raises ``RetriableError``."""
        if time.monotonic() >= self._asked_at + _KNOWN_FOR:
            try:
                found = self._broker.topics(_ASK_FOR)
                self._partitions = {name: info.partitions for name, info in found.items()}
            except RetriableError:
                if topic not in self._partitions:
                    raise
            self._asked_at = time.monotonic()
        if topic not in self._partitions:
            raise RetriableError(f"the topic {topic} is gone, or not there yet")
        return self._partitions[topic]

    def _topic_id(self, topic: str) -> str:
        if known := self.consumed_id(topic):
            return known
        if topic not in self._topic_ids:
            self._topic_ids = {name: info.id for name, info in self._broker.topics().items()}
        if topic not in self._topic_ids:
            raise StageError(
                Stage.KAFKA_CONSUME, RetriableError(f"the topic {topic} is gone, or not there yet")
            )
        return self._topic_ids[topic]


def _in_place(record: SinkRecord, before: SinkRecord) -> SinkRecord:
    """Where a record was consumed is not a transform's to change: outages and offsets go by it."""
    if record is before or _place(record) == _place(before):
        return record
    partition, offset, original_topic = _place(before)
    return record._replace(partition=partition, offset=offset, original_topic=original_topic)
