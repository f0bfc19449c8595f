"""⑤ produce and ⑥ acknowledgement: sends batches to the broker and keeps their ledger."""

from __future__ import annotations

import itertools
import logging
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, NoReturn, Protocol

from tieline.api import AccessDeniedError, DataError, RecordMetadata, RetriableError, SourceRecord
from tieline.broker.port import Broker, Producer, RefusedNowError
from tieline.broker.records import Delivery, Unit
from tieline.runtime.errors.failed_records import FailedRecord, Failure, Failures, describe_failure
from tieline.runtime.errors.failure_table import Stage
from tieline.runtime.errors.retry_state import StageError, StopRequestedError, TaskFailedError
from tieline.runtime.source.conversion import SourceConversion
from tieline.runtime.task.environment import TaskEnvironment
from tieline.runtime.task.ledger import DeliveryLedger, Entry
from tieline.runtime.task.timestamps import not_ahead

log = logging.getLogger(__name__)

Acknowledged = Callable[[Sequence[SourceRecord], Sequence["RecordMetadata | None"]], None]


class Positions(NamedTuple):
    """Where a batch comes from: each record's source partition, and the offset that each partition reaches.

    ``describe`` names the position of the record with an index, for messages.
    """

    partitions: Sequence[str]
    reached: Mapping[str, str]
    describe: Callable[[int], str] = "record {} of its batch".format


class SavedPositions(Protocol):
    """Where a sender saves positions: a spool."""

    def save(self, reached: Mapping[str, str]) -> None:
        """Note that everything before these positions is acknowledged. Raises ``RetriableError``."""


@dataclass(frozen=True)
class ProducerOptions:
    """How a task's records reach the broker, from its settings."""

    broker: Broker
    client_id: str
    overrides: Mapping[str, str]
    in_flight_bytes: int = 32 * 1024 * 1024
    new_topic_partitions: int = -1
    new_topic_replication: int = -1
    positions: SavedPositions | None = None
    """Where a spool's positions are saved; ``None`` if they are source offsets, which the broker saves."""

    def producer(self) -> Producer:
        """Return a new producer."""
        return self.broker.producer(self.client_id, self.overrides)


@dataclass
class _Sent:
    """A batch on its way; ``unit`` holds those of its records that are not acknowledged.

    ``kept``: the index in the batch of each record that was sent. ``indexes``: where each record of the unit
    is in ``kept`` and ``metadata``.
    """

    unit: Unit
    batch: Sequence[SourceRecord]
    positions: Positions
    kept: Sequence[int]
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
        self._refused = (
            False  # the broker refuses the oldest batch: nothing else is sent until it is accepted
        )
        self._topics: set[str] = set()
        self._open: deque[_Sent] = deque()
        self._producer = environment.retry(Stage.START, options.producer)
        self._producing = environment.retry_state(Stage.KAFKA_PRODUCE)
        self._saving = environment.retry_state(Stage.OFFSET_COMMIT)

    @property
    def full(self) -> bool:
        """Whether so much is in flight that nothing more should be sent now."""
        return self._refused or self._producer.in_flight_bytes >= self._options.in_flight_bytes

    @property
    def idle(self) -> bool:
        """Whether nothing is in flight."""
        return not self._open

    def send(self, batch: Sequence[SourceRecord], positions: Positions) -> None:
        """③ ④ ⑤ Convert and send a batch. Raises ``TaskFailedError``, ``StopRequestedError``."""
        converted, failures = self._environment.retry(
            Stage.VALUE_CONVERTER, lambda: self._conversion.convert(batch)
        )
        if failures:
            self._fail(failures, batch, positions)
        records = [record for record in converted if record is not None]
        kept: Sequence[int] = range(len(batch))
        for topic in {record.topic for record in records} - self._topics:
            self._create(topic)
        total = Counter(positions.partitions)
        filtered: Counter[str] = Counter()
        if len(records) < len(batch):
            kept = [index for index, record in enumerate(converted) if record is not None]
            filtered.update(p for p, r in zip(positions.partitions, converted, strict=True) if r is None)
        entries = [
            (
                self.ledger.dispatch(partition, offset, total[partition], filtered[partition]),
                total[partition] - filtered[partition],
            )
            for partition, offset in positions.reached.items()
        ]
        offsets = positions.reached if self._options.positions is None else {}
        unit = Unit(records, self._environment.connector, offsets)
        self._open.append(
            _Sent(unit, batch, positions, kept, entries, range(len(records)), [None] * len(records))
        )
        if self._refused:
            return
        try:
            self._producer.send(unit)
        except (RetriableError, AccessDeniedError) as error:
            self._replace_producer(error)

    def poll(self, timeout: float) -> None:
        """⑥: settle what the broker has acknowledged. Raises ``TaskFailedError``, ``StopRequestedError``."""
        try:
            deliveries = self._producer.poll(timeout)
        except (RetriableError, AccessDeniedError) as error:
            self._replace_producer(error)
            return
        for delivery in deliveries:
            if not self._settle(delivery):
                return
            self._producing.over()

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
        """Save as ``save`` does; return false during an outage. Raises ``TaskFailedError``."""
        try:
            saved = self.save(timeout)
        except Exception as error:  # noqa: BLE001 - the failure table decides
            self._saving.after(error)  # the next save is the next attempt
            return False
        if saved:
            self._saving.over()
        return saved

    def save(self, timeout: float) -> bool:
        """Save the positions that are safe; return whether there were any.

        Raises ``RetriableError``, ``FatalError``.
        """
        offsets = self.ledger.committable()
        if offsets:
            if self._options.positions is None:
                self._producer.save_offsets(self._environment.connector, offsets, timeout)
            else:
                self._options.positions.save(offsets)
            self.ledger.committed(offsets)
        return bool(offsets)

    def finish(self, drain: float, timeout: float) -> bool:
        """End: wait ``drain`` seconds for what is in flight, then save; return whether something was saved.

        What is then still in flight is dropped: its acknowledgement would not be noticed any more.
        """
        try:
            self.drain(self._environment.clock.now() + drain)
        except StopRequestedError:
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
        """Return whether all of the batch is acknowledged; else refused records are sent again, alone."""
        sent = self._open[0]
        if sent.unit is not delivery.unit:
            raise TaskFailedError("the broker acknowledged out of order; nothing more is considered safe")
        for index, metadata in zip(sent.indexes, delivery.metadata, strict=True):
            sent.metadata[index] = metadata
        reasons = [_reason(error) for error in delivery.failures.values()]
        if reasons and all(isinstance(reason, RefusedNowError) for reason in reasons):
            refused = sorted(delivery.failures)
            sent.indexes = [sent.indexes[i] for i in refused]
            sent.unit = replace(sent.unit, records=[sent.unit.records[i] for i in refused])
            self._replace_producer(
                AccessDeniedError(f"{len(refused)} record(s) refused, the first: {reasons[0]}"), refused=True
            )
            return False
        self._open.popleft()
        if delivery.failures:
            rejected = {
                sent.kept[sent.indexes[i]]: Failure(Stage.KAFKA_PRODUCE, _reason(error))
                for i, error in delivery.failures.items()
            }
            self._fail(rejected, sent.batch, sent.positions)
        for entry, count in sent.entries:
            self.ledger.settle(entry, delivered=count)
        if self._acknowledged is not None:
            every: list[RecordMetadata | None] = [None] * len(sent.batch)
            for index, metadata in zip(sent.kept, sent.metadata, strict=True):
                every[index] = metadata
            try:
                self._acknowledged(sent.batch, every)
            except Exception as error:
                sentence = f"commit_record: {type(error).__name__}: {error}"
                raise TaskFailedError(sentence, unexpected=error) from error
        if self._refused:
            self._refused = False
            self._send_open(len(self._open))
        return True

    def _replace_producer(self, error: Exception, *, refused: bool = False) -> None:
        """Replace a producer that failed; the new one sends all that is not acknowledged again, in order.

        ``refused``: only the oldest batch, so that what the broker accepts is not written at each attempt.
        """
        delay = self._producing.after(StageError(Stage.KAFKA_PRODUCE, error))
        if self._environment.clock.wait(self._environment.stop, delay) and refused:
            raise StopRequestedError
        self._producer.close(0)
        self._producer = self._environment.retry(Stage.KAFKA_PRODUCE, self._options.producer)
        self._refused = refused or self._refused
        self._send_open(1 if self._refused else len(self._open))

    def _fail(self, failures: Failures, batch: Sequence[SourceRecord], positions: Positions) -> NoReturn:
        """Raise ``TaskFailedError`` about the first failed record of a batch."""

        def failed(index: int) -> FailedRecord:
            topic, connector = batch[index].topic, self._environment.connector
            return FailedRecord(
                f"of the connector {connector} for the topic {topic} at {positions.describe(index)}",
                "its batch and everything behind it wait where they are",
            )

        cause = failures[min(failures)].cause
        raise TaskFailedError(describe_failure(failures, failed), restart_helps=False) from cause

    def _send_open(self, number: int) -> None:
        now = self._environment.clock.wall_ms()
        for sent in itertools.islice(self._open, number):
            sent.unit = replace(sent.unit, records=not_ahead(sent.unit.records, now))
            self._producer.send(sent.unit)


def _reason(error: Exception) -> Exception:
    return next(iter(error.failures.values()), error) if isinstance(error, DataError) else error
