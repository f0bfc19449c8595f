"""The registry's state as the topic ``_schemas`` tells it, on either home of the broker port.

One class reads and writes that topic, for the worker's converters (``TopicSchemaStore``) and for the
registry that is served. What Confluent's or Karapace's registry wrote is read, and the other way round.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TypeVar

from tieline.api import DataError, FatalError, RetriableError, Schema
from tieline.broker.internal import SCHEMAS
from tieline.broker.port import Broker, ConsumedRecord, ProducerRecord
from tieline.registry.group_commit import Commits, Rule
from tieline.registry.model import errors, rules
from tieline.registry.model.budget import OverBudget
from tieline.registry.model.errors import RegistryError
from tieline.registry.model.events import Content, Event, Malformed, decode, encode
from tieline.registry.model.state import Conflict, Subjects
from tieline.registry.model.stored_schema import readable_schema, written_out
from tieline.registry.slow_lane import Lane
from tieline.registry.topic_follower import Follower

TOPIC = SCHEMAS
T = TypeVar("T")
log = logging.getLogger(__name__)

_TIMEOUT = 10.0  # seconds, of one call to the broker
_TURNS = 8  # how often a write that another instance fenced is tried
_PAUSE = 0.05


class SchemaTopic:
    """Asks and changes the state. Safe for many threads; none waits for the broker that need not.

    ``ask`` answers from memory. What another instance registered is seen on a miss (the topic is read to
    its end before anything is answered as not there), and, once ``follow`` was called, within
    milliseconds. ``change`` decides on a state that is up to date, as the topic's only writer.

    ``skipped`` counts records that are none of a registry's, or contradict an earlier one.
    """

    def __init__(self, broker: Broker) -> None:
        self.skipped = 0
        self._broker = broker
        self._state = Subjects()
        self._fork: Subjects | None = None
        self._lock = threading.Lock()  # of the state; nothing is asked or computed while it is held
        self._reading = threading.Lock()
        self._commits = Commits(self._write)
        self._lane = Lane()
        self._position: dict[int, int] = {}
        self._own: deque[tuple[bytes, bytes | None]] = deque()
        self._caught_up = 0.0
        self._exists = False
        self._follower: Follower | None = None

    @property
    def cluster_id(self) -> str:
        """The broker's."""
        return self._broker.cluster_id

    def content(self, schema_id: int) -> Content | None:
        """What is known in memory of an id, without a lock."""
        return self._state.content(schema_id)

    def snapshot(self) -> Subjects:
        """The state as it is, for good: what is read or written later does not change it."""
        with self._lock:
            if self._fork is None:
                self._fork = self._state.fork()
            return self._fork

    def peek(self, question: Callable[[Subjects], T]) -> T:
        """The answer from memory, as it is. Raises ``RegistryError``."""
        state = self.snapshot()
        return self._lane.answer(lambda: question(state))

    def ask(self, question: Callable[[Subjects], T]) -> T:
        """The answer of a pure question; where it is that something is not there, the topic is read first.

        Raises ``RegistryError``, ``RetriableError``.
        """
        asked = time.monotonic()
        try:
            return self.peek(question)
        except RegistryError as error:
            if error.status != 404:
                raise
        self.catch_up(asked)
        return self.peek(question)

    def change(self, rule: Rule) -> rules.Decision:
        """Decide, and write what was decided. Raises ``RegistryError``, ``RetriableError``, ``FatalError``.

        Decided twice or three times. At first without fencing other instances, since most requests change
        nothing; on what the follower has read, or, where that does not do, on a state that is up to date.
        At last as the topic's only writer, with what was computed. What others have written meanwhile may
        need more, and sends it back.
        """
        asked = time.monotonic()
        is_current = self._follower is not None and self._follower.well
        try:
            decision = self.peek(rule)
            if not decision.events:
                return decision
        except RegistryError as error:
            if error.code in errors.OF_COSTS:
                raise
            is_current = False
        if not is_current:
            self.catch_up(asked)
        for turn in range(1, _TURNS + 1):
            decision = self.peek(rule)
            if not decision.events:
                return decision
            self._ensure_topic()
            try:
                return self._commits.commit(rule)
            except OverBudget:
                continue
            except RetriableError:
                if turn == _TURNS:
                    raise
            time.sleep(random.uniform(0.5, 1.5) * _PAUSE * turn)  # another instance is writing: let it
        raise errors.busy()

    def catch_up(self, since: float | None = None) -> None:
        """Read to the end of the topic, unless a read began after ``since``. Raises ``RetriableError``."""
        with self._reading:
            if since is not None and self._caught_up > since:
                return
            began = time.monotonic()
            with self._lock:
                start = dict(self._position)
            self._broker.read(TOPIC, self._visit, start=start, timeout=_TIMEOUT)
            self._caught_up = began

    def follow(self, timeout: float = 60.0) -> bool:
        """Read all there is, then what comes, until ``close``; whether all was read within ``timeout``.

        Raises ``FatalError``.
        """
        self._follower = Follower(self._broker, TOPIC, self._visit)
        try:
            return self._follower.start(timeout)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Stop following; the broker is not closed."""
        if self._follower is not None:
            self._follower.close()
            self._follower = None

    def _write(self, decide: Callable[[Subjects], list[Event]]) -> None:
        with self._broker.exclusive(TOPIC, _TIMEOUT) as held:
            self.catch_up()
            events = decide(self.snapshot().fork())
            records = [encode(event) for event in events]
            held.append([ProducerRecord(TOPIC, value, key, partition=0) for key, value in records])
        # Taken from here: Kafka shows a transaction a moment after its end. When these records come by,
        # they are passed over.
        with self._lock:
            for event in events:
                self._state.apply(event)
            self._fork = None
            self._own.extend(records)

    def _ensure_topic(self) -> None:
        if not self._exists:
            self._broker.create_topic(TOPIC, partitions=1, config={"cleanup.policy": "compact"})
            self._exists = True

    def _visit(self, record: ConsumedRecord) -> None:
        with self._lock:
            if record.offset < self._position.get(record.partition, 0):
                return
            # So far it was read, also where the end is not reached in time: the next call goes on here.
            self._position[record.partition] = record.offset + 1
            if self._own and (record.key or b"", record.value) in self._own:
                while self._own.popleft() != (record.key or b"", record.value):
                    pass  # compaction took those before it
                return
            # Ours stand before everything that was not there when they were written: they were read, or
            # compaction took them. One that is written like them later is news.
            self._own.clear()
            try:
                event = decode(record.key, record.value)
                if event is not None:
                    self._state.apply(event)
                    self._fork = None
            except (Malformed, Conflict) as error:
                self.skipped += 1
                where = f"{record.topic}-{record.partition}@{record.offset}"
                log.warning("a record of the registry's topic is passed over: %s", error, extra={"at": where})


class TopicSchemaStore:
    """A ``SchemaStore``: what the worker's converters ask of the topic. Safe for many threads.

    A new schema must keep the compatibility that is configured for its subject, as through HTTP.
    """

    def __init__(self, broker: Broker, topic: SchemaTopic | None = None) -> None:
        self._topic = topic or SchemaTopic(broker)

    def register(self, subject: str, schema: Schema) -> int:
        """The id of this schema under this subject; new ones get the next free id.

        Raises ``RetriableError``; ``FatalError`` where the registry's rules forbid it, with the reasons.
        """
        asked = rules.Request(Content("AVRO", schema.text))
        try:
            return int(self._topic.change(lambda state: rules.register(state, subject, asked)).answer.id)
        except RegistryError as error:
            if error.status == 503:
                raise RetriableError(
                    f"{schema.name} cannot be registered under {subject} now: {error}"
                ) from error
            raise FatalError(f"{schema.name} cannot be registered under {subject}: {error}") from error
        except DataError as error:
            cause = next(iter(error.failures.values()), error)
            raise FatalError(f"{schema.name} cannot be registered under {subject}: {cause}") from error

    def schema(self, schema_id: int) -> Schema | None:
        """The schema of this id, which somebody else may have just registered. Raises ``RetriableError``.

        Makes no topic: who only looks leaves nothing behind.
        """
        content = self._topic.content(schema_id) or self._asked(schema_id)
        if content is None:
            return None
        if content.type == "AVRO" and content.references:
            return _whole(self._topic.snapshot(), content)
        return readable_schema(schema_id, content.type, content.text)

    def _asked(self, schema_id: int) -> Content | None:
        self._topic.catch_up(time.monotonic())
        return self._topic.content(schema_id)


def _whole(state: Subjects, content: Content) -> Schema:
    """A schema with all that it refers to written into it. Raises ``ValueError`` where that is not there."""
    try:
        texts = rules.resolve(state, content.references, deleted=True)
        return Schema.lenient(written_out(content.text, texts))
    except RegistryError as error:
        raise ValueError(f"not an Avro schema: {error}") from error
