"""Where the replay of a letter goes, the record that it writes there, and what is refused."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from typing import NamedTuple

from tieline.api import (
    DIGEST_HEADER,
    ID_HEADER,
    DataError,
    Headers,
    SchemaStore,
    identity,
)
from tieline.broker.internal import replay_topic
from tieline.broker.port import Broker
from tieline.broker.records import ConsumedRecord, ProducerRecord
from tieline.config.planned import ConnectorPlan, SinkPlan, SourcePlan
from tieline.converters.avro import framed_schema_id
from tieline.dead_letters.jobs import AGAIN, DELIVERED, FILTERED, SENT, Job
from tieline.dead_letters.letter import Cause, DeadLetter, replay_id
from tieline.dead_letters.record import (
    ATTEMPTS_HEADER,
    JOB_HEADER,
    ORIGIN_HEADER,
    REPLAY_OF_HEADER,
    letter_record,
)
from tieline.runtime.errors.failed_records import Failure, cause_of, fix_for
from tieline.runtime.errors.failure_table import Stage
from tieline.runtime.errors.retry_state import StageError
from tieline.runtime.sink.identity import RecordIdentities
from tieline.runtime.task.timestamps import TIMESTAMP_HEADER
from tieline.topics.dead_letters.conversion import (
    Conversions,
    SinkResult,
    SourceResult,
    as_source_record,
    is_of_source,
)

_TIMEOUT = 10.0
_COMMANDS = "command."
"""The namespace of the schemas of commands."""


class Step(NamedTuple):
    """What a replay writes for one letter, and what the letter's mark says when it is written.

    ``record`` is ``None`` if there is nothing to write.
    """

    outcome: str
    record: ProducerRecord | None


class CommandTopics:
    """Recognizes commands, which are never replayed: by schema, or by a sink that keeps a changelog."""

    def __init__(self, broker: Broker, connectors: Collection[str], schemas: SchemaStore) -> None:
        self._offsets = broker.offsets
        self._connectors = connectors
        self._topics: dict[str, str] = {}
        self._schemas = schemas

    def refusal(self, letter: DeadLetter) -> str:
        """Return why a letter holds a command; empty if it does not."""
        topic = letter.topic
        if owner := self.owner(topic, letter.connector):
            return _refuse_command(f"{topic} is a topic of commands, of the connector {owner}")
        if letter.form is not None:
            schema = letter.form.value_schema
            return _refuse_command("it has a command's schema") if f'"{_COMMANDS[:-1]}"' in schema else ""
        name = self._schema_name(letter.value)
        return _refuse_command(f"its schema is {name}") if name.startswith(_COMMANDS) else ""

    def owner(self, topic: str, connector: str = "") -> str:
        """Return the connector that keeps a changelog of its actions on this topic; empty if none does."""
        if topic not in self._topics:
            names = {*self._connectors, connector} - {""}
            self._topics[topic] = next(
                (n for n in names if self._offsets.has_changelog(f"{n}-{topic}-changelog", _TIMEOUT)), ""
            )
        return self._topics[topic]

    def _schema_name(self, value: bytes | None) -> str:
        schema_id = None if value is None else framed_schema_id(value)
        if schema_id is None:
            return ""
        try:
            schema = self._schemas.schema(schema_id)
        except ValueError:
            return ""
        return "" if schema is None else schema.name or ""


class Targets:
    """Makes the record that the replay of a letter writes, for the target of a job. Used by one thread."""

    def __init__(self, broker: Broker, job: Job, conversions: Conversions, now: Callable[[], int]) -> None:
        self._job = job
        self._now = now
        self._conversions = conversions
        self._identities = RecordIdentities(broker, lambda name, number: None)

    def connector(self, letter: DeadLetter) -> str:
        """Return the name of the connector to which a letter goes."""
        return self._job.to_connector or letter.connector

    def refusal(self, letter: DeadLetter) -> str:
        """Return why a letter cannot be replayed to the target, with the fix; empty if it can."""
        name = self.connector(letter)
        plan = self._conversions.plans.get(name)
        if is_of_source(letter):
            return self._source_refusal(letter, name, plan)
        if letter.form is not None:
            return (
                f"its sink reported it late, so that its bytes are not kept. Let {name} read {letter.where} "
                "again: tieline offsets set"
            )
        if self._job.to_topic:
            return ""
        if not name:
            return "it names no connector. Give one with --to-connector, or a topic with --to-topic"
        if plan is None:
            return (
                f"its connector {name} is not among the files given. Add its file, give another connector "
                "with --to-connector, or a topic with --to-topic"
            )
        if not isinstance(plan, SinkPlan):
            return f"it is about a consumed record, and {name} is a source"
        if plan.settings.dead_letters is None:
            return (
                f"{name} reads replays only if it has a dead letter queue: set errors.tolerance=all, or give "
                "a topic with --to-topic"
            )
        return ""

    def step(self, letter: DeadLetter) -> Step:
        """Return what to write for a letter that is not refused. Raises ``RetriableError``."""
        if is_of_source(letter):
            return self._source_step(letter)
        topic = self._job.to_topic or replay_topic(self.connector(letter))
        headers = letter.headers
        if not {ID_HEADER, DIGEST_HEADER} <= {name for name, _ in headers}:
            headers = self._identified(letter)
        time = headers[-1:] if headers and headers[-1][0] == TIMESTAMP_HEADER else ()
        if not time and letter.timestamp is not None and letter.timestamp >= 0:
            time = ((TIMESTAMP_HEADER, b"%d" % letter.timestamp),)
        elif time:
            headers = headers[:-1]
        headers = (*headers, *self._replay_headers(letter, not self._job.to_topic), *time)
        record = ProducerRecord(topic, letter.value, letter.key, headers)
        return Step(DELIVERED if self._job.to_topic else SENT, record)

    def convert(self, letter: DeadLetter) -> SinkResult | SourceResult | None:
        """Return what the present configuration makes of a letter; ``None`` if its bytes go to a topic."""
        conversion = self._conversions.of(self.connector(letter))
        if is_of_source(letter):
            assert conversion is not None
            return conversion.to_broker(as_source_record(letter))
        if self._job.to_topic:
            return None
        assert conversion is not None
        record = self.step(letter).record
        assert record is not None
        partition, offset = letter.partition or 0, letter.offset or 0
        headers = record.headers
        return conversion.to_sink(
            ConsumedRecord(letter.topic, partition, offset, letter.value, letter.key, headers, self._now())
        )

    def failed(self, letter: DeadLetter, error: Exception) -> Step | None:
        """Return what to write if the broker will never accept a source's record; ``None`` for others."""
        if not is_of_source(letter):
            return None
        cause = cause_of(error) if isinstance(error, DataError) else error
        return self._again(letter, Failure(Stage.KAFKA_PRODUCE, cause))

    def _source_refusal(self, letter: DeadLetter, name: str, plan: ConnectorPlan | None) -> str:
        if not isinstance(plan, SourcePlan):
            return (
                f"it holds a record of the source {name}, whose transforms and converters are needed. "
                "Add the source's file"
            )
        try:
            as_source_record(letter)
        except (ValueError, RecursionError) as error:
            return f"its record cannot be read back: {error}"
        return ""

    def _source_step(self, letter: DeadLetter) -> Step:
        conversion = self._conversions.of(self.connector(letter))
        assert conversion is not None
        result = conversion.to_broker(as_source_record(letter))
        if result.failure is not None:
            return self._again(letter, result.failure)
        if result.record is None:
            return Step(FILTERED, None)
        record, headers = result.record, result.record.headers
        time: Headers = ()
        if headers and headers[-1][0] == TIMESTAMP_HEADER:
            headers, time = headers[:-1], headers[-1:]
        return Step(
            DELIVERED,
            record._replace(
                topic=self._job.to_topic or record.topic,
                headers=(*headers, *self._replay_headers(letter, False), *time),
            ),
        )

    def _again(self, letter: DeadLetter, failure: Failure) -> Step:
        attempts = letter.attempts + 1
        cause = Cause.of(
            failure.stage.value,
            failure.cause,
            raised_by=failure.raised_by,
            fix=f"{fix_for(failure.stage)}, then replay the letter",
        )
        again = replace(
            letter,
            id=replay_id(letter.id, attempts),
            cause=cause,
            attempts=attempts,
            replay_of=letter.id,
            failed_at=self._now(),
        )
        return Step(AGAIN, letter_record(again, self._job.letters))

    def _replay_headers(self, letter: DeadLetter, to_connector: bool) -> Headers:
        headers: list[tuple[str, bytes | None]] = [
            (ATTEMPTS_HEADER, b"%d" % (letter.attempts + 1)),
            (REPLAY_OF_HEADER, letter.id.encode("utf-8", "backslashreplace")),
            (JOB_HEADER, self._job.id.encode()),
        ]
        if to_connector:
            place = letter.topic
            if letter.partition is not None and letter.offset is not None:
                place = f"{letter.topic}-{letter.partition}@{letter.offset}"
            headers.append((ORIGIN_HEADER, place.encode("utf-8", "backslashreplace")))
        return tuple(headers)

    def _identified(self, letter: DeadLetter) -> Headers:
        """Return the headers with the identity that the record had when it failed."""
        known = {name for name, _ in letter.headers}
        if letter.partition is None or letter.offset is None:
            added = identity("tieline dead letter", letter.id)[:1]
            return letter.headers if ID_HEADER in known else _before_time(letter.headers, added)
        record = ConsumedRecord(
            letter.topic,
            letter.partition,
            letter.offset,
            letter.value,
            letter.key,
            letter.headers,
            letter.timestamp or 0,
        )
        try:
            headers = self._identities.headers(record)
        except StageError:  # the topic is not there any more
            added = identity("tieline dead letter", letter.id)[:1]
        else:
            added = headers[len(letter.headers) :]
        return _before_time(letter.headers, added)


def _before_time(headers: Headers, added: Headers) -> Headers:
    if headers and headers[-1][0] == TIMESTAMP_HEADER:
        return (*headers[:-1], *added, headers[-1])
    return (*headers, *added)


def _refuse_command(why: str) -> str:
    return f"{why}: a command is never replayed, because its moment has passed. Send a new command"
