"""⑤ produce and ⑥ acknowledgement: carries batches to the broker and keeps the ledger of them."""

from __future__ import annotations

import itertools
import logging
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

from tieline.api import AccessDeniedError, DataError, RecordMetadata, RetriableError, SourceRecord
from tieline.broker.port import Broker, Delivery, Producer, RefusedNowError, Unit
from tieline.runtime.errors.retry import StageError, StopRequested, TaskFailedError
from tieline.runtime.errors.table import Stage
from tieline.runtime.source.conversion import SourceConversion
from tieline.runtime.task.environment import TaskEnvironment
from tieline.runtime.task.ledger import DeliveryLedger, Entry
from tieline.runtime.task.timestamps import not_ahead

log = logging.getLogger(__name__)

Acknowledged = Callable[[Sequence[SourceRecord], Sequence["RecordMetadata | None"]], None]


class Positions(NamedTuple):
    """Where a batch comes from: each record's source partition, and the offset each partition reaches."""

    partitions: Sequence[str]
    reached: Mapping[str, str]


class SavedPositions(Protocol):
    """A spool, seen from the sender."""

    def save(self, reached: Mapping[str, str]) -> None:
        """Everything before these positions is acknowledged. Raises ``RetriableError``."""


@dataclass(frozen=True)
class ProducerOptions:
    """How a task's records get to the broker, from its settings."""

    broker: Broker
    client_id: str
    overrides: Mapping[str, str]
    in_flight_bytes: int = 32 * 1024 * 1024
    new_topic_partitions: int = -1
    new_topic_replication: int = -1
    positions: SavedPositions | None = None
    """Where positions are saved: a spool's own. None: they are source offsets, the broker's."""

    def producer(self) -> Producer:
        """A new producer."""
        return self.broker.producer(self.client_id, self.overrides)


@dataclass
class _Sent:
    """A batch on its way; ``unit`` holds those of its records that are not acknowledged.

    ``indexes``: where each record of the unit is in ``metadata``, which has all that were sent.
    """

    unit: Unit
    batch: Sequence[SourceRecord]
    kept: Sequence[bool]
    entries: Sequence[tuple[Entry[str, str], int]]
    indexes: Sequence[int]
    metadata: list[RecordMetadata | None]


class Sender:
    """Sends in order, settles in order; used by one thread. ``ledger.counts`` may be read from any."""

    def __init__(
        self,
        environment: TaskEnvironment,
        conversion: SourceConversion,
        options: ProducerOptions,
        acknowledged: Acknowledged | None = None,
    ) -> None:
        self.ledger: DeliveryLedger[str, str] = DeliveryLedger()
        self._environment = environment
        self._conversion = conversion
        self._options = options
        self._acknowledged = acknowledged
        self._refused = False  # the brokers refuse the oldest batch: nothing else is sent until they take it
        self._topics: set[str] = set()
        self._open: deque[_Sent] = deque()
        self._producer = environment.retry(Stage.START, options.producer)
        self._broken = environment.retry_state(Stage.KAFKA_PRODUCE)
        self._unsaved = environment.retry_state(Stage.OFFSET_COMMIT)

    @property
    def full(self) -> bool:
        """So much is in flight that nothing more should be sent now."""
        return self._refused or self._producer.in_flight_bytes >= self._options.in_flight_bytes

    @property
    def idle(self) -> bool:
        """Nothing is in flight."""
        return not self._open

    def send(self, batch: Sequence[SourceRecord], positions: Positions) -> None:
        """Carry a batch through ③ ④ ⑤. Raises ``TaskFailedError``, ``StopRequested``."""
        converted = self._environment.retry(Stage.VALUE_CONVERTER, lambda: self._conversion.convert(batch))
        records = [record for record in converted if record is not None]
        for topic in {record.topic for record in records} - self._topics:
            self._create(topic)
        total = Counter(positions.partitions)
        gone: Counter[str] = Counter()
        if len(records) < len(batch):
            gone.update(p for p, r in zip(positions.partitions, converted, strict=True) if r is None)
        entries = [
            (
                self.ledger.dispatch(partition, offset, total[partition], gone[partition]),
                total[partition] - gone[partition],
            )
            for partition, offset in positions.reached.items()
        ]
        offsets = positions.reached if self._options.positions is None else {}
        unit = Unit(records, self._environment.connector, offsets)
        kept = [record is not None for record in converted]
        self._open.append(_Sent(unit, batch, kept, entries, range(len(records)), [None] * len(records)))
        if self._refused:
            return
        try:
            self._producer.send(unit)
        except (RetriableError, AccessDeniedError) as error:
            self._rebuild(error)

    def poll(self, timeout: float) -> None:
        """⑥: settle what the broker has acknowledged. Raises ``TaskFailedError``, ``StopRequested``."""
        try:
            deliveries = self._producer.poll(timeout)
        except (RetriableError, AccessDeniedError) as error:
            self._rebuild(error)
            return
        for delivery in deliveries:
            if not self._settle(delivery):
                return
            self._broken.over()

    def drain(self, deadline: float) -> bool:
        """Wait until nothing is in flight; false if it still is at the deadline (of the task's clock)."""
        while not self.idle:
            left = deadline - self._environment.clock.now()
            if left <= 0:
                log.warning(
                    "stopped with records in flight; they will be sent again after the next start",
                    extra={"in_flight": self.ledger.counts.in_flight},
                )
                return False
            self.poll(min(left, 0.2))
        return True

    def try_save(self, timeout: float) -> bool:
        """As ``save``; an outage is left to the next time. Raises ``TaskFailedError``."""
        try:
            saved = self.save(timeout)
        except Exception as error:
            self._unsaved.after(error)  # the next save is the next attempt
            return False
        self._unsaved.over()
        return saved

    def save(self, timeout: float) -> bool:
        """Save the positions that are safe; whether there were any. Raises ``RetriableError``, ``Fatal``."""
        offsets = self.ledger.committable()
        if offsets:
            if self._options.positions is None:
                self._producer.save_offsets(self._environment.connector, offsets, timeout)
            else:
                self._options.positions.save(offsets)
            self.ledger.committed(offsets)
        return bool(offsets)

    def finish(self, drain: float, timeout: float) -> bool:
        """At the end of a task: ``drain`` seconds for what is in flight, then ``save``.

        What is then still in flight is dropped: if it arrived, nobody would settle it any more.
        """
        try:
            self.drain(self._environment.clock.now() + drain)
        except StopRequested:
            pass
        finally:
            try:
                saved = self.try_save(timeout)
            finally:
                self._producer.close(0)
                self._conversion.stop()
        return saved

    def _create(self, topic: str) -> None:
        options = self._options

        def create() -> None:
            if options.broker.create_topic(
                topic, partitions=options.new_topic_partitions, replication=options.new_topic_replication
            ):
                log.info("created the topic %s", topic)

        self._environment.retry(Stage.KAFKA_PRODUCE, create)
        self._topics.add(topic)

    def _settle(self, delivery: Delivery) -> bool:
        """Whether all of the batch is acknowledged; else what is refused is sent again, alone."""
        sent = self._open[0]
        if sent.unit is not delivery.unit:
            raise TaskFailedError("the broker acknowledged out of order; nothing more is taken as safe")
        for index, where in zip(sent.indexes, delivery.metadata, strict=True):
            sent.metadata[index] = where
        reasons = [_reason(error) for error in delivery.failures.values()]
        if reasons and all(isinstance(reason, RefusedNowError) for reason in reasons):
            refused = sorted(delivery.failures)
            sent.indexes = [sent.indexes[i] for i in refused]
            sent.unit = replace(sent.unit, records=[sent.unit.records[i] for i in refused])
            self._rebuild(
                AccessDeniedError(f"{len(refused)} record(s) refused, the first: {reasons[0]}"), refused=True
            )
            return False
        self._open.popleft()
        if delivery.failures:
            index, error = min(delivery.failures.items())
            cause = _reason(error)
            topic = delivery.unit.records[index].topic
            raise TaskFailedError(
                f"{Stage.KAFKA_PRODUCE.value}: {len(delivery.failures)} record(s) cannot be produced; "
                f"the first, for the topic {topic}: {cause}. All from there on wait where they are: change "
                "the topic's settings, or filter the record with a transform"
            ) from cause
        for entry, count in sent.entries:
            self.ledger.settle(entry, delivered=count)
        if self._acknowledged is not None:
            places = iter(sent.metadata)
            metadata = [next(places) if kept else None for kept in sent.kept]
            try:
                self._acknowledged(sent.batch, metadata)
            except Exception as error:
                raise TaskFailedError(f"commit_record: {type(error).__name__}: {error}") from error
        if self._refused:
            self._refused = False
            self._send_open(len(self._open))
        return True

    def _rebuild(self, error: Exception, *, refused: bool = False) -> None:
        """A producer broke for good: a new one sends again all that is not acknowledged, in order.

        ``refused``: only the oldest batch, so that what the brokers take is not written with each attempt.
        """
        delay = self._broken.after(StageError(Stage.KAFKA_PRODUCE, error))
        if self._environment.clock.wait(self._environment.stop, delay) and refused:
            raise StopRequested
        self._producer.close(0)
        self._producer = self._environment.retry(Stage.KAFKA_PRODUCE, self._options.producer)
        self._refused = refused or self._refused
        self._send_open(1 if self._refused else len(self._open))

    def _send_open(self, number: int) -> None:
        now = self._environment.clock.wall_ms()
        for sent in itertools.islice(self._open, number):
            sent.unit = replace(sent.unit, records=not_ahead(sent.unit.records, now))
            self._producer.send(sent.unit)


def _reason(error: Exception) -> Exception:
    return next(iter(error.failures.values()), error) if isinstance(error, DataError) else error
