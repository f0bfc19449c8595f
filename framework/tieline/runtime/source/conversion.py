"""③ transforms and ④ converters on the source side: source records to bytes for a topic."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from tieline.api import Converter, Datum, SourceRecord
from tieline.broker.records import ProducerRecord
from tieline.dead_letters.letter import class_name
from tieline.runtime.errors.failed_records import Failure, collect_failures
from tieline.runtime.errors.failure_table import Stage
from tieline.runtime.task.clock import Clock
from tieline.runtime.task.timestamps import at_broker
from tieline.runtime.task.transform_chain import TransformChain


class Converted(NamedTuple):
    """A producer record for each record of a batch, ``None`` for a filtered or failed one; the failures."""

    records: Sequence[ProducerRecord | None]
    failures: dict[int, Failure]


class SourceConversion:
    """Converts batches of source records for the broker; used by one thread."""

    def __init__(
        self,
        transforms: TransformChain,
        key: Converter[Any],
        value: Converter[Any],
        clock: Clock | None = None,
    ) -> None:
        self._transforms = transforms
        self._key = key
        self._value = value
        self._clock = clock or Clock()

    def convert(self, batch: Sequence[SourceRecord]) -> Converted:
        """Transform and serialize a batch; data errors are in ``failures``. Raises ``StageError``."""
        records, indexes, failures = self._transforms.apply(batch)
        keys, bad_keys = self._serialize(
            Stage.KEY_CONVERTER, self._key, [Datum(r.topic, r.key, r.key_schema) for r in records]
        )
        values, bad_values = self._serialize(
            Stage.VALUE_CONVERTER, self._value, [Datum(r.topic, r.value, r.value_schema) for r in records]
        )
        if bad := {**bad_values, **bad_keys}:
            failures |= {indexes[index]: failure for index, failure in bad.items()}
        out: list[ProducerRecord | None] = [None] * len(batch)
        now = self._clock.wall_ms()
        for index, record, key, value in zip(indexes, records, keys, values, strict=True):
            timestamp, headers = at_broker(record.timestamp, record.headers, now)
            out[index] = ProducerRecord(record.topic, value, key, headers, timestamp, record.partition)
        for index in failures:
            out[index] = None
        return Converted(out, failures)

    def stop(self) -> None:
        """Stop the transforms. Called once, at the end of the task."""
        self._transforms.stop()

    def _serialize(
        self, stage: Stage, converter: Converter[Any], data: Sequence[Datum]
    ) -> tuple[Sequence[bytes | None], dict[int, Failure]]:
        name, tolerant = class_name(type(converter)), self._transforms.tolerant
        return collect_failures(stage, name, converter.serialize, data, tolerant=tolerant)
