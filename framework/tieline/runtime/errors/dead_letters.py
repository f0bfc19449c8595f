"""The dead letters of one task: their records, the window, counters, alarm and log."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from tieline.api import DataError, RetriableError, SinkRecord, SourceRecord
from tieline.broker.internal import replay_topic
from tieline.broker.port import Broker
from tieline.broker.records import ConsumedRecord, ProducerRecord, Unit
from tieline.config.dead_letters import DeadLetterQueue
from tieline.dead_letters.letter import Cause, DeadLetter, Form, consumed_id, replay_id, source_id
from tieline.dead_letters.others import Origin
from tieline.dead_letters.record import letter_record, replayed
from tieline.dead_letters.source_record import source_form
from tieline.logs import redaction
from tieline.runtime.errors.failed_records import Failure, cause_of, fix_for
from tieline.runtime.errors.tolerance import ToleranceWindow
from tieline.runtime.task.alarms import Alarms
from tieline.runtime.task.environment import TaskEnvironment

log = logging.getLogger(__name__)

COUNTER = "dead_letters."
"""The names of the counters of dead letters begin with this; the stage follows."""

_LARGEST_LETTER = 17 << 20  # the client's largest record, and headers
_SHOWN = 200  # bytes of a key and a value in the log


def create_replay_topic(broker: Broker, connector: str, replication: int, timeout: float = 10.0) -> None:
    """Create the topic of replays to a sink if it is missing.

    It keeps them without a limit of time: they are marked as replayed, and the sink may be stopped for long.
    """
    purpose = f"replays to the connector {connector}"
    _create_topic(broker, replay_topic(connector), purpose, replication, timeout)


def _create_topic(broker: Broker, topic: str, purpose: str, replication: int, timeout: float) -> None:
    config = {"retention.ms": "-1", "max.message.bytes": str(_LARGEST_LETTER)}
    if broker.create_topic(topic, partitions=1, replication=replication, config=config, timeout=timeout):
        log.info("created the topic %s for %s", topic, purpose)


class SourcePosition(NamedTuple):
    """Where a record was in its source.

    ``key`` and ``text`` identify it and describe it; ``number`` counts records of a batch at one position.
    """

    key: str
    text: str
    number: int = 0


class DeadLetters:
    """Makes the dead letters of one task. Used by the task's thread.

    Counters: ``dead_letters.<stage>``. Each kind of alarm is logged once a minute.
    """

    def __init__(self, queue: DeadLetterQueue, broker: Broker, environment: TaskEnvironment) -> None:
        self.queue = queue
        self.topic = queue.topic
        self.replay_topic = replay_topic(environment.connector)
        """Records of this topic are replays: that they fail again says nothing new about the task."""
        self.window = ToleranceWindow(queue.window)
        self._broker = broker
        self._environment = environment
        self._alarms = Alarms("dead_letters", environment.counters, environment.clock)

    def create_topic(self, timeout: float = 10.0) -> None:
        """Create the topic of dead letters if it is missing.

        It keeps letters until they are dropped, and takes whatever the client can send: a record that is too
        large for its own topic is a dead letter, too.
        """
        _create_topic(self._broker, self.topic, "dead letters", self.queue.replication, timeout)

    def create_replay_topic(self, timeout: float = 10.0) -> None:
        """Create the topic of replays to this sink if it is missing."""
        create_replay_topic(self._broker, self._environment.connector, self.queue.replication, timeout)

    def of_consumed(
        self,
        record: ConsumedRecord,
        failure: Failure,
        schema_id: int | None = None,
        form: Form | None = None,
    ) -> ProducerRecord:
        """Return the letter about a consumed record, and report it.

        ``form``: what its bytes are, if they are not those that were consumed.
        """
        replay = replayed(record.headers)
        environment = self._environment
        place = record.topic, record.partition, record.offset
        origin = Origin(*place)
        if replay.origin is not None and record.topic == self.replay_topic:
            origin = replay.origin
            if origin.partition is not None and origin.offset is not None:
                place = origin.topic, origin.partition, origin.offset
        letter = DeadLetter(
            replay_id(consumed_id(environment.connector, *place), replay.attempts),
            *origin,
            record.value,
            record.key,
            replay.headers,
            record.timestamp,
            _cause(failure, schema_id),
            environment.connector,
            environment.task,
            form=form,
            failed_at=environment.clock.wall_ms(),
            attempts=replay.attempts,
            replay_of=replay.replay_of,
        )
        return self._report(letter)

    def of_record(self, record: SinkRecord, failure: Failure) -> ProducerRecord:
        """Return the letter about a record whose consumed bytes are not known any more, and report it."""
        topic, partition = record.consumed_from
        data = SourceRecord(
            topic, record.value, record.key, value_schema=record.value_schema, key_schema=record.key_schema
        )
        value, key, form = source_form(data)
        time = -1 if record.timestamp is None else record.timestamp
        consumed = ConsumedRecord(topic, partition, record.offset, value, key, record.headers, time)
        return self.of_consumed(consumed, failure, form=form)

    def of_source(self, record: SourceRecord, failure: Failure, position: SourcePosition) -> ProducerRecord:
        """Return the letter about a source's record, and report it."""
        value, key, form = source_form(record)
        letter = self._source_letter(failure, position, value, key, form)
        replay = replayed(record.headers)
        letter = replace(
            letter,
            topic=record.topic,
            headers=replay.headers,
            timestamp=record.timestamp,
            attempts=replay.attempts,
            replay_of=replay.replay_of,
        )
        return self._report(letter)

    def of_damaged(self, record: SourceRecord, failure: Failure, position: SourcePosition) -> ProducerRecord:
        """Return the letter about a row of the spool that the disk has changed, and report it.

        ``record``: its value is the row; everything else is unknown.
        """
        return self._report(self._source_letter(failure, position, record.value, None, Form("spool")))

    def write(self, records: Sequence[ProducerRecord], timeout: float) -> None:
        """Write letters, and return when they are acknowledged.

        Raises ``DataError`` by index for letters that are refused, ``RetriableError``, ``FatalError``.
        """
        clock = self._environment.clock
        deadline = clock.now() + timeout
        producer = self._broker.producer(f"{self._environment.id}-dead-letters", {})
        try:
            producer.send(Unit(records))
            while (left := deadline - clock.now()) > 0:
                for delivery in producer.poll(left):
                    if delivery.failures:
                        raise DataError({i: cause_of(error) for i, error in delivery.failures.items()})
                    return
            raise RetriableError(f"{self.topic}: dead letters were not acknowledged within {timeout:g} s")
        finally:
            producer.close(0)

    def describe_exceeded(self) -> str:
        """Return the sentence about a window that was exceeded."""
        window = self.queue.window
        assert window is not None
        return (
            f"more than {window.tolerated} of the last {window.records} records cannot be handled "
            f"(errors.tolerance.window). The letters before this one are in {self.topic}"
        )

    def _source_letter(
        self, failure: Failure, position: SourcePosition, value: bytes | None, key: bytes | None, form: Form
    ) -> DeadLetter:
        environment = self._environment
        return DeadLetter(
            source_id(environment.connector, position.key, value, position.number),
            "",
            None,
            None,
            value,
            key,
            (),
            None,
            _cause(failure, None),
            environment.connector,
            environment.task,
            position.text,
            form,
            environment.clock.wall_ms(),
        )

    def _report(self, letter: DeadLetter) -> ProducerRecord:
        cause = letter.cause
        self._environment.counters.add(COUNTER + cause.stage)
        self._alarms.raise_alarm(
            cause.stage,
            f"{cause.stage}: records that cannot be handled become dead letters in {self.topic}, now the "
            f"record {letter.where}: {cause.error}. {cause.fix}",
        )
        if self.queue.log:
            extra = {"stage": cause.stage, "fingerprint": cause.fingerprint, "dead_letter": letter.id}
            shown = f": {cause.message}; {_shown(letter)}" if self.queue.log_records else ""
            log.error("dead letter: the record %s: %s%s", letter.where, cause.error, shown, extra=extra)
        return letter_record(letter, self.topic, context=self.queue.context)


def _cause(failure: Failure, schema_id: int | None) -> Cause:
    """Return the cause without secrets: an error's text may show an address with a password."""
    cause = Cause.of(
        failure.stage.value,
        failure.cause,
        raised_by=failure.raised_by,
        schema_id=schema_id,
        fix=f"{fix_for(failure.stage)}, then replay the letter",
    )
    clean = redaction.clean
    return cause._replace(message=clean(cause.message), traceback=clean(cause.traceback))


def _shown(letter: DeadLetter) -> str:
    key, value = (part if part is None else part[:_SHOWN] for part in (letter.key, letter.value))
    return f"key {key!r}, value {value!r}"
