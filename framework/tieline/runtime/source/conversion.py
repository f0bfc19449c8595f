"""③ transforms and ④ converters on the source side: source records to bytes for a topic."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tieline.api import Converter, DataError, Datum, SourceRecord
from tieline.broker.port import ProducerRecord
from tieline.runtime.errors.retry import StageError
from tieline.runtime.errors.table import Stage
from tieline.runtime.task.clock import Clock
from tieline.runtime.task.timestamps import at_broker
from tieline.runtime.task.transform_chain import TransformChain, with_batch_indexes


class SourceConversion:
    """Makes a batch of source records ready for the broker; used by one thread."""

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

    def convert(self, batch: Sequence[SourceRecord]) -> list[ProducerRecord | None]:
        """A producer record for each, none where a transform filtered it. Raises ``StageError``."""
        records, indexes = self._transforms.apply(batch)
        keys = _serialized(
            Stage.KEY_CONVERTER, self._key, [Datum(r.topic, r.key, r.key_schema) for r in records], indexes
        )
        values = _serialized(
            Stage.VALUE_CONVERTER,
            self._value,
            [Datum(r.topic, r.value, r.value_schema) for r in records],
            indexes,
        )
        out: list[ProducerRecord | None] = [None] * len(batch)
        now = self._clock.wall_ms()
        for index, record, key, value in zip(indexes, records, keys, values, strict=True):
            timestamp, headers = at_broker(record.timestamp, record.headers, now)
            out[index] = ProducerRecord(record.topic, value, key, headers, timestamp, record.partition)
        return out

    def stop(self) -> None:
        """Called once, at the end of the task."""
        self._transforms.stop()


def _serialized(
    stage: Stage, converter: Converter[Any], data: Sequence[Datum], indexes: Sequence[int]
) -> list[bytes | None]:
    try:
        return converter.serialize(data)
    except DataError as error:
        raise StageError(stage, with_batch_indexes(error, indexes)) from error
    except Exception as error:
        raise StageError(stage, error) from error
