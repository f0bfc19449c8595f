"""⑤ produce and ⑥ acknowledgement: sends batches to the broker and keeps their ledger."""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NoReturn

from tieline.api import AccessDeniedError, RecordMetadata, RetriableError, SourceRecord
from tieline.broker.port import Broker, Producer, RefusedNowError, TooLargeError
from tieline.broker.records import Delivery, ProducerRecord, Unit
from tieline.dead_letters.record import shorten
from tieline.runtime.errors.dead_letters import DeadLetters, SourcePosition
from tieline.runtime.errors.failed_records import FailedRecord, Failure, Failures, cause_of, describe_failure
from tieline.runtime.errors.failure_table import Stage
from tieline.runtime.errors.retry_state import StageError, StopRequestedError, TaskFailedError
from tieline.runtime.source.conversion import SourceConversion
from tieline.runtime.source.positions import Positions, SavedPositions
from tieline.runtime.source.sent_batch import SentBatch, positions_of
from tieline.runtime.source.source_totals import SourceTotals
from tieline.runtime.spool.spool import DamagedRow
from tieline.runtime.task.environment import TaskEnvironment
from tieline.runtime.task.ledger import DeliveryLedger
from tieline.runtime.task.timestamps import not_ahead

log = logging.getLogger(__name__)

MakeLetter = Callable[[SourceRecord, Failure, SourcePosition], ProducerRecord]
Acknowledged = Callable[[Sequence[SourceRecord], Sequence["RecordMetadata | None"]], None]


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


class Sender:
    """Sends in order, settles in order; used by one thread. ``ledger.counts`` may be read from any."""

    def __init__(
        self,
        environment: TaskEnvironment,
        conversion: SourceConversion,
        options: ProducerOptions,
        acknowledged: Acknowledged | None = None,
        dead_letters: DeadLetters | None = None,
    ) -> None:
        """``dead_letters``: where records go that cannot be handled; ``None``: one of them stops the task."""
        self.ledger: DeliveryLedger[str, str] = DeliveryLedger()
        self.totals = SourceTotals(self.ledger)
        """Those of source partitions; a spool keeps its own."""
        self._environment = environment
        self._conversion = conversion
        self._options = options
        self._acknowledged = acknowledged
        self._dead_letters = dead_letters
        self._refused = (
            False  # the broker refuses the oldest batch: nothing else is sent until it is accepted
        )
        self._topics: set[str] = set()
        self._open: deque[SentBatch] = deque()
        self._sending: deque[SentBatch] = deque()
        """Those of the open batches that the producer has, in the order of sending."""
        if dead_letters is not None:
            environment.retry(Stage.START, dead_letters.create_topic)
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
        """③ ④ ⑤ Convert and send a batch. Raises ``TaskFailedError``, ``StopRequestedError``.

        A record that cannot be converted is replaced by its dead letter, in its place.
        """
        converted, failures = self._environment.retry(
            Stage.VALUE_CONVERTER, lambda: self._conversion.convert(batch)
        )
        if failures:
            letters = self._letters(failures, batch, positions)
            converted = [letters.get(index, record) for index, record in enumerate(converted)]
        elif self._dead_letters is not None:
            self._dead_letters.window.advance(len(batch))
        self._dispatch(batch, positions, converted, set(failures))

    def send_damaged(self, rows: Sequence[DamagedRow], positions: Positions) -> None:
        """Send the dead letters of rows of the spool that cannot be decoded. Raises ``TaskFailedError``."""
        assert self._dead_letters is not None
        failures = {i: Failure(Stage.SPOOL, row.error) for i, row in enumerate(rows)}
        batch = [SourceRecord("", row.value) for row in rows]
        letters = self._letters(failures, batch, positions, make=self._dead_letters.of_damaged)
        self._dispatch(batch, positions, [letters[index] for index in range(len(rows))], set(letters))

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
            if delivery.metadata:
                self._environment.activity.note_delivered(self._environment.clock)

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
                notes = self.totals.notes(offsets)
                self._producer.save_offsets(self._environment.connector, offsets, timeout, notes)
                self.totals.confirm(offsets)
            else:
                ended = {partition: self.ledger.ended(partition) for partition in offsets}
                self._options.positions.save(offsets, ended)
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
        options, dead_letters = self._options, self._dead_letters

        def create() -> None:
            if options.broker.create_topic(
                topic, partitions=options.new_topic_partitions, replication=options.new_topic_replication
            ):
                log.info("created the topic %s", topic)

        is_dead = dead_letters is not None and topic == dead_letters.topic
        if not is_dead:  # that one was created at the start, with settings of its own
            self._environment.retry(Stage.KAFKA_PRODUCE, create)
        self._topics.add(topic)

    def _dispatch(
        self,
        batch: Sequence[SourceRecord],
        positions: Positions,
        converted: Sequence[ProducerRecord | None],
        letters: set[int],
    ) -> None:
        """⑤ Send a converted batch; ``None`` stands for a filtered record. ``letters``: their indexes."""
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
        offsets: Mapping[str, str] = {}
        if self._options.positions is None:
            offsets = positions.reached
            self.totals.enter(offsets, self._environment.clock.wall_ms())
        unit = Unit(records, self._environment.connector, offsets)
        sent = SentBatch(unit, batch, positions, kept, entries, letters)
        self._open.append(sent)
        if self._refused:
            return
        try:
            self._note(sent)
            self._send_unit(sent)
        except (RetriableError, AccessDeniedError) as error:
            self._replace_producer(error)

    def _note(self, sent: SentBatch) -> None:
        """Add the totals to the source offsets of a batch, behind all that are sent before it."""
        if self._options.positions is None:
            sent.unit = replace(sent.unit, notes=self.totals.expect(sent.expected()))

    def _send_unit(self, sent: SentBatch) -> None:
        self._sending.append(sent)
        self._producer.send(sent.unit)

    def _settle(self, delivery: Delivery) -> bool:
        """Settle what ends with a unit; return false if refused records are sent again, alone."""
        sent = self._sending.popleft()
        if sent.unit is not delivery.unit:
            raise TaskFailedError("the broker acknowledged out of order; nothing more is considered safe")
        sent.acknowledge(delivery.metadata)
        reasons = {index: cause_of(error) for index, error in delivery.failures.items()}
        if not reasons:
            sent.done = True
        elif refused := self._replace_refused(sent, reasons):
            self._replace_producer(refused, refused=True)
            return False
        else:
            self._send_unit(sent)
        while self._open and self._open[0].done:
            self._complete(self._open.popleft())
        return True

    def _replace_refused(self, sent: SentBatch, reasons: Mapping[int, Exception]) -> AccessDeniedError | None:
        """Narrow a batch to what the broker refused, with dead letters for what it will never accept.

        Return an error if it may accept what is left later, but not now: among that is a dead letter that it
        does not accept. Raises ``TaskFailedError``.
        """
        never = {i: reason for i, reason in reasons.items() if self._is_final(reason)}
        failures = {sent.index(i): Failure(Stage.KAFKA_PRODUCE, reason) for i, reason in never.items()}
        new = {index: failure for index, failure in failures.items() if index not in sent.letters}
        if new and self._dead_letters is None:
            everything = {sent.index(i): Failure(Stage.KAFKA_PRODUCE, r) for i, r in reasons.items()}
            self._fail(everything, sent.batch, sent.positions)
        letters = self._letters(new, sent.batch, sent.positions, late=True) if new else {}
        waiting = [str(reason) for i, reason in reasons.items() if i not in never]
        records = {}
        for index in reasons:
            record = letters.get(sent.index(index), sent.unit.records[index])
            if index in never and record is sent.unit.records[index]:  # a letter
                shorter = shorten(record)
                if shorter is None:
                    waiting.append(f"{never[index]}. Raise the max.message.bytes of this dead letter topic")
                record = shorter or record
            records[index] = record
        sent.letters.update(letters)
        sent.narrow(records)
        if not waiting:
            return None
        return AccessDeniedError(f"{len(waiting)} record(s) refused, the first: {waiting[0]}")

    def _is_final(self, reason: Exception) -> bool:
        """Return whether a record that was refused for this reason need not be sent again.

        One that is too large for its topic waits for an operator only if it cannot become a dead letter.
        """
        if isinstance(reason, TooLargeError):
            return self._dead_letters is not None
        return not isinstance(reason, RefusedNowError)

    def _complete(self, sent: SentBatch) -> None:
        """⑥ Settle a batch that is acknowledged, the oldest one."""
        sent.settle(self.ledger)
        if self._options.positions is None:
            self.totals.complete(sent.expected())
        if self._acknowledged is not None:
            try:
                self._acknowledged(sent.batch, sent.all_metadata())
            except Exception as error:
                sentence = f"commit_record: {type(error).__name__}: {error}"
                raise TaskFailedError(sentence, unexpected=error) from error
        if self._refused:
            self._refused = False
            self._send_open(len(self._open))

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

    def _letters(
        self,
        failures: Failures,
        batch: Sequence[SourceRecord],
        positions: Positions,
        *,
        late: bool = False,
        make: MakeLetter | None = None,
    ) -> dict[int, ProducerRecord]:
        """Return the dead letters of a batch, by index. Raises ``TaskFailedError`` if they are not tolerated.

        ``late``: the batch was sent, so that its records count as good already.
        """
        dead_letters = self._dead_letters
        if dead_letters is None:
            self._fail(failures, batch, positions)
        window = dead_letters.window
        exceeded = window.exceeded_at(failures) if not late else window.fail_late(failures)
        if exceeded is not None:
            self._fail({exceeded: failures[exceeded]}, batch, positions, dead_letters.describe_exceeded())
        if not late:
            window.advance(len(batch), failures)
        make = make or dead_letters.of_source
        where = positions_of(positions, failures)
        return {i: make(batch[i], failure, where[i]) for i, failure in sorted(failures.items())}

    def _fail(
        self, failures: Failures, batch: Sequence[SourceRecord], positions: Positions, why: str = ""
    ) -> NoReturn:
        """Raise ``TaskFailedError`` about the first failed record of a batch."""

        def failed(index: int) -> FailedRecord:
            topic, connector = batch[index].topic, self._environment.connector
            return FailedRecord(
                f"of the connector {connector} for the topic {topic} at {positions.describe(index)}",
                "its batch and everything behind it wait where they are",
            )

        cause = failures[min(failures)].cause
        sentence = describe_failure(failures, failed)
        raise TaskFailedError(f"{why}. {sentence}" if why else sentence, restart_helps=False) from cause

    def _send_open(self, number: int) -> None:
        now = self._environment.clock.wall_ms()
        self._sending.clear()
        self.totals.expect_again()
        for sent in self._open:
            if not sent.done:
                if number == 0:
                    break
                number -= 1
                sent.unit = replace(sent.unit, records=not_ahead(sent.unit.records, now))
            self._note(sent)
            if not sent.done:
                self._send_unit(sent)
