"""Writing the records that go with a commit, before its offsets."""

from __future__ import annotations

import time
from collections.abc import Sequence

from tieline.api import DataError, RetriableError, TielineError
from tieline.broker.kafka.producer import KafkaProducer
from tieline.broker.kafka.settings import ClientSettings
from tieline.broker.records import Delivery, ProducerRecord, Unit


class CommitRecords:
    """Writes records with a producer of its own, which is created when it is first needed.

    Used by the thread of its consumer. A record that is given again after it was acknowledged is not written
    again until ``confirm``: the commit of its offsets failed, and is repeated.
    """

    def __init__(self, settings: ClientSettings) -> None:
        self._settings = settings
        self._producer: KafkaProducer | None = None
        self._unit: Unit | None = None
        self._indexes: Sequence[int] = ()  # where each record of the unit is among those of the commit
        self._acknowledged: dict[int, ProducerRecord] = {}  # by identity: two records may be equal

    def write(self, records: Sequence[ProducerRecord], timeout: float, what: str) -> None:
        """Write records, and return when all are acknowledged. Raises as ``poll``, and after ``timeout``."""
        deadline = time.monotonic() + timeout
        self.start(records)
        while not self.poll(max(0.0, deadline - time.monotonic())):
            if time.monotonic() >= deadline:
                raise RetriableError(
                    f"{what}: {len(records)} records that go with it were not acknowledged within "
                    f"{timeout:g} s; no offset is committed"
                )

    def start(self, records: Sequence[ProducerRecord]) -> None:
        """Start to write records. What an earlier call has not ended is abandoned."""
        if self._unit is not None:
            self.close()
        self._indexes = [i for i, record in enumerate(records) if id(record) not in self._acknowledged]
        if not self._indexes:
            return
        if self._producer is None:
            self._producer = KafkaProducer(self._settings, "")
        self._unit = Unit([records[index] for index in self._indexes])
        self._producer.send(self._unit)

    def poll(self, timeout: float) -> bool:
        """Return whether all records are acknowledged, waiting at most ``timeout`` seconds.

        Raises ``DataError`` by index for records that cannot be written, and what the producer raises.
        """
        if self._unit is None or self._producer is None:
            return True
        try:
            deliveries = self._producer.poll(timeout)
        except TielineError:
            self.close()  # a producer that has raised is of no further use
            raise
        if not deliveries:
            return False
        self._end(deliveries[0])
        return True

    def confirm(self) -> None:
        """Note that the offsets are committed."""
        self._acknowledged.clear()

    def close(self) -> None:
        """Close the producer, abandoning what is not acknowledged."""
        producer, self._producer, self._unit = self._producer, None, None
        if producer is not None:
            producer.close(0)

    def _end(self, delivery: Delivery) -> None:
        self._unit = None
        for record, metadata in zip(delivery.unit.records, delivery.metadata, strict=True):
            if metadata is not None:
                self._acknowledged[id(record)] = record
        causes: dict[int, Exception] = {}
        for index, error in delivery.failures.items():
            if not isinstance(error, DataError):
                raise error
            causes[self._indexes[index]] = next(iter(error.failures.values()))
        if causes:
            raise DataError(causes)
