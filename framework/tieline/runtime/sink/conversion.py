"""⑧ converters and ⑨ transforms on the sink side: what a topic holds to sink records."""

from __future__ import annotations

import logging
import operator
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from tieline.api import Converter, Datum, Encoded, SinkRecord, Unreadable
from tieline.api.record import rows
from tieline.broker.port import Broker
from tieline.broker.records import ConsumedRecord
from tieline.dead_letters.letter import class_name
from tieline.dead_letters.record import origin_of
from tieline.runtime.errors.failed_records import Failure, collect_failures
from tieline.runtime.errors.failure_table import Stage
from tieline.runtime.sink.identity import RecordIdentities
from tieline.runtime.task.timestamps import as_written
from tieline.runtime.task.transform_chain import TransformChain

log = logging.getLogger(__name__)

_consumed_at = operator.attrgetter("partition", "offset", "original_topic")


class Converted(NamedTuple):
    """The records for ``put``, the index in the consumed batch of each, and what failed, by index.

    ``unreadable``: those of the failures whose bytes no converter can read.
    """

    records: Sequence[SinkRecord]
    indexes: Sequence[int]
    failures: Mapping[int, Failure]
    unreadable: frozenset[int] = frozenset()

    def part(self, start: int, stop: int) -> Converted:
        """Return the same for a part of the batch, with the indexes of that part."""
        first, last = bisect_left(self.indexes, start), bisect_left(self.indexes, stop)
        failures = {i - start: failure for i, failure in self.failures.items() if start <= i < stop}
        indexes = [index - start for index in self.indexes[first:last]]
        return Converted(self.records[first:last], indexes, failures)


class SinkConversion:
    """Converts consumed records for a sink; used by one thread.

    Most sinks need no key, and a key that cannot be read must not stop them. It is passed on as bytes,
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
        replay_topic: str = "",
    ) -> None:
        """``replay_topic``: its records get the topic from which they were consumed at first."""
        self.identities = RecordIdentities(broker, count)
        self._transforms = transforms
        self._key = key
        self._value = value
        self._count = count
        self._replay_topic = replay_topic
        self._reported_keys = False

    def convert(self, batch: Sequence[ConsumedRecord]) -> Converted:
        """Convert a batch; data errors are in ``failures``. Raises ``StageError`` for all other errors."""
        indexes: Sequence[int] = range(len(batch))
        if not batch:
            return Converted([], indexes, {})
        batch = [as_written(record) for record in batch]
        topics, partitions, offsets, raw_values, raw_keys, _, timestamps = zip(*batch, strict=True)
        names = topics
        if self._replay_topic in topics:
            names = tuple(map(self._first_topic, batch))
        keys = self._keys(batch, rows(Encoded, names, raw_keys))
        values, failures = self._deserialize(
            Stage.VALUE_CONVERTER, self._value, rows(Encoded, names, raw_values)
        )
        if failures:
            values = [Datum("", None) if value is None else value for value in values]
        _, key_data, key_schemas = zip(*keys, strict=True)
        _, value_data, value_schemas = zip(*values, strict=True)
        headers = map(self.identities.headers, batch)
        where = names, partitions, offsets
        records = rows(
            SinkRecord, *where, value_data, key_data, headers, timestamps, value_schemas, key_schemas, topics
        )
        unreadable = frozenset(failures)
        if failures:
            indexes = [index for index in indexes if index not in failures]
            records = [records[index] for index in indexes]
        transformed, kept, rejected = self._transforms.apply(records)
        if rejected:
            failures |= {indexes[index]: failure for index, failure in rejected.items()}
        if transformed is not records:
            records = [_in_place(r, records[i]) for r, i in zip(transformed, kept, strict=True)]
        return Converted(records, [indexes[i] for i in kept], failures, unreadable)

    def as_consumed(self, record: ConsumedRecord) -> SinkRecord:
        """Return a record with its key and value in bytes, and its identity. Raises ``StageError``."""
        record = as_written(record)
        topic, partition, offset, value, key, _, timestamp = record
        headers, name = self.identities.headers(record), self._first_topic(record)
        return SinkRecord(name, partition, offset, value, key, headers, timestamp, original_topic=topic)

    def with_unreadable(self, converted: Converted, batch: Sequence[ConsumedRecord]) -> Converted:
        """Return the same with unreadable records among the others. Raises ``StageError``."""
        if not converted.unreadable:
            return converted
        failures = dict(converted.failures)
        both = dict(zip(converted.indexes, converted.records, strict=True))
        for index in converted.unreadable:
            record = self.as_consumed(batch[index])
            both[index] = record._replace(value=Unreadable(record.value, failures.pop(index).cause))
        indexes = sorted(both)
        return Converted([both[index] for index in indexes], indexes, failures)

    def stop(self) -> None:
        """Stop the transforms. Called once, at the end of the task."""
        self._transforms.stop()

    def _first_topic(self, record: ConsumedRecord) -> str:
        """Return the topic from which a record was consumed at first, if it is a replay."""
        if record.topic != self._replay_topic:
            return record.topic
        origin = origin_of(record.headers)
        return record.topic if origin is None else origin.topic

    def _keys(self, batch: Sequence[ConsumedRecord], encoded: Sequence[Encoded]) -> Sequence[Any]:
        keys, unreadable = self._deserialize(Stage.KEY_CONVERTER, self._key, encoded)
        if not unreadable:
            return keys
        self._count("keys.unreadable", len(unreadable))
        if not self._reported_keys:
            self._reported_keys = True
            first = min(unreadable)
            record = batch[first]
            log.warning(
                "keys that key.converter cannot read are passed on as bytes, the first at %s-%d@%d: %s."
                " If the keys are needed, correct key.converter",
                *(record.topic, record.partition, record.offset, unreadable[first].cause),
            )
        return [
            Datum(record.topic, record.key) if index in unreadable else key
            for index, (record, key) in enumerate(zip(batch, keys, strict=True))
        ]

    def _deserialize(
        self, stage: Stage, converter: Converter[Any], batch: Sequence[Encoded]
    ) -> tuple[Sequence[Datum | None], dict[int, Failure]]:
        name, tolerant = class_name(type(converter)), self._transforms.tolerant
        return collect_failures(stage, name, converter.deserialize, batch, tolerant=tolerant)


def _in_place(record: SinkRecord, before: SinkRecord) -> SinkRecord:
    """Return a transformed record where it was consumed: outages and offsets depend on that."""
    if record is before or _consumed_at(record) == _consumed_at(before):
        return record
    partition, offset, original_topic = _consumed_at(before)
    return record._replace(partition=partition, offset=offset, original_topic=original_topic)
