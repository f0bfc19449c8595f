"""The registry's state in the topic ``_schemas``, on either backend of the broker interface.

One class reads and writes that topic, for the worker's converters (``TopicSchemaStore``) and for the HTTP
registry. The record format is the one of Confluent's and Karapace's registries.
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
from tieline.broker.port import Broker
from tieline.broker.records import ConsumedRecord, ProducerRecord
from tieline.registry.group_commit import GroupCommit, Rule
from tieline.registry.model import errors, rules, schema_lookup
from tieline.registry.model.budget import OverBudgetError
from tieline.registry.model.errors import RegistryError
from tieline.registry.model.events import Content, Event, MalformedRecordError, decode, encode
from tieline.registry.model.state import ConflictError, Subjects
from tieline.registry.model.stored_schema import inline_references, parse_stored_schema
from tieline.registry.slow_lane import SlowLane
from tieline.registry.topic_follower import TopicFollower

TOPIC = SCHEMAS
T = TypeVar("T")
log = logging.getLogger(__name__)

_TIMEOUT = 10.0  # seconds, of one call to the broker
_MAX_ATTEMPTS = 8  # to write, while other instances write too
_PAUSE = 0.05


class SchemaTopic:
    """Reads and changes the state. Safe for many threads; a thread waits for the broker only if it must.

    ``ask`` answers from memory. Before it reports that something does not exist, it reads the topic to its
    end. After ``follow``, changes of other instances are seen within milliseconds. ``change`` decides on an
    up-to-date state, as the topic's only writer.

    ``skipped`` counts records that no registry writes, or that contradict earlier ones.
    """

    def __init__(self, broker: Broker) -> None:
        self.skipped = 0
        self._broker = broker
        self._state = Subjects()
        self._snapshot: Subjects | None = None
        self._lock = threading.Lock()  # of the state; held neither while computing nor while waiting
        self._reading = threading.Lock()
        self._commits = GroupCommit(self._write)
        self._lane = SlowLane()
        self._position: dict[int, int] = {}
        self._applied: deque[tuple[bytes, bytes | None]] = deque()  # written and applied, but not yet read
        self._caught_up = 0.0
        self._exists = False
        self._follower: TopicFollower | None = None

    @property
    def cluster_id(self) -> str:
        """The broker's id."""
        return self._broker.cluster_id

    @property
    def waiting_changes(self) -> int:
        """The number of changes that no thread has started to write yet."""
        return self._commits.waiting

    def content(self, schema_id: int) -> Content | None:
        """Return the schema of an id if it is in memory. Takes no lock."""
        return self._state.content(schema_id)

    def snapshot(self) -> Subjects:
        """Return the present state. What is read or written later does not change it."""
        with self._lock:
            if self._snapshot is None:
                self._snapshot = self._state.fork()
            return self._snapshot

    def peek(self, question: Callable[[Subjects], T]) -> T:
        """Return the answer from memory. Raises ``RegistryError``."""
        state = self.snapshot()
        return self._lane.answer(lambda: question(state))

    def ask(self, question: Callable[[Subjects], T]) -> T:
        """Return the answer of a pure question. If it is "not found", read the topic and ask again.

        Raises ``RegistryError``, ``RetriableError``.
        """
        start = time.monotonic()
        try:
            return self.peek(question)
        except RegistryError as error:
            if error.status != 404:
                raise
        self.catch_up(start)
        return self.peek(question)

    def change(self, rule: Rule) -> rules.Decision:
        """Decide a change and write it. Raises ``RegistryError``, ``RetriableError``, ``FatalError``.

        The rule is called two or three times. First without fencing other instances, since most requests
        change nothing: on the followed state, or after reading the topic. Finally as the topic's only writer,
        with cached results. If another instance's write makes it compute more, it starts again.
        """
        start = time.monotonic()
        is_current = self._follower is not None and self._follower.is_current
        try:
            decision = self.peek(rule)
            if not decision.events:
                return decision
        except RegistryError as error:
            if error.code in errors.COST_CODES:
                raise
            is_current = False
        if not is_current:
            self.catch_up(start)
        return self._commit(rule)

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
        """Read the topic until ``close``; return whether its end was reached within ``timeout`` seconds.

        Raises ``FatalError``.
        """
        self._follower = TopicFollower(self._broker, TOPIC, self._visit)
        try:
            return self._follower.start(timeout)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Stop following. The broker stays open."""
        if self._follower is not None:
            self._follower.close()
            self._follower = None

    def _commit(self, rule: Rule) -> rules.Decision:
        for attempt in range(1, _MAX_ATTEMPTS + 1):
            decision = self.peek(rule)
            if not decision.events:
                return decision
            self._ensure_topic()
            try:
                return self._commits.commit(rule)
            except OverBudgetError:
                continue
            except RetriableError:
                if attempt == _MAX_ATTEMPTS:
                    raise
            time.sleep(random.uniform(0.5, 1.5) * _PAUSE * attempt)  # lets the other instance write
        raise errors.busy()

    def _write(self, decide: Callable[[Subjects], list[Event]]) -> None:
        with self._broker.exclusive(TOPIC, _TIMEOUT) as writer:
            self.catch_up()
            events = decide(self.snapshot().fork())
            records = [encode(event) for event in events]
            writer.append([ProducerRecord(TOPIC, value, key, partition=0) for key, value in records])
        # Applied now, since Kafka shows a transaction only a moment after its end. These records are skipped
        # when they are read.
        with self._lock:
            for event in events:
                self._state.apply(event)
            self._snapshot = None
            self._applied.extend(records)

    def _ensure_topic(self) -> None:
        if not self._exists:
            self._broker.create_topic(TOPIC, partitions=1, config={"cleanup.policy": "compact"})
            self._exists = True

    def _visit(self, record: ConsumedRecord) -> None:
        with self._lock:
            if record.offset < self._position.get(record.partition, 0):
                return
            # The position advances even if the end is not reached in time; the next read resumes here.
            self._position[record.partition] = record.offset + 1
            if self._applied and (record.key or b"", record.value) in self._applied:
                while self._applied.popleft() != (record.key or b"", record.value):
                    pass  # compaction has removed the ones before it
                return
            # Our records precede everything that was written after them, so they were either read or
            # compacted. A later record with the same bytes is another registry's, and new.
            self._applied.clear()
            try:
                event = decode(record.key, record.value)
                if event is not None:
                    self._state.apply(event)
                    self._snapshot = None
            except (MalformedRecordError, ConflictError) as error:
                self.skipped += 1
                position = f"{record.topic}-{record.partition}@{record.offset}"
                log.warning(
                    "skipped a record of the registry's topic: %s", error, extra={"position": position}
                )


class TopicSchemaStore:
    """A ``SchemaStore`` for the worker's converters, over the topic. Safe for many threads.

    A new schema must keep the compatibility level of its subject, as over HTTP.
    """

    def __init__(self, broker: Broker, topic: SchemaTopic | None = None) -> None:
        self._topic = topic or SchemaTopic(broker)

    def register(self, subject: str, schema: Schema) -> int:
        """Return the id of a schema under a subject; a new schema gets the next free id.

        Raises ``RetriableError``; ``FatalError`` with the reasons if the registry's rules forbid the schema.
        """
        request = rules.SchemaRequest(Content("AVRO", schema.text))
        what = f"{schema.name} cannot be registered under {subject}"
        try:
            return int(self._topic.change(lambda state: rules.register(state, subject, request)).answer.id)
        except RegistryError as error:
            if error.status == 503:
                raise RetriableError(f"{what} now: {error}") from error
            raise FatalError(f"{what}: {error}") from error
        except DataError as error:
            cause = next(iter(error.failures.values()), error)
            raise FatalError(f"{what}: {cause}") from error

    def schema(self, schema_id: int) -> Schema | None:
        """Return the schema of an id, even if it was registered a moment ago. Raises ``RetriableError``.

        It never creates the topic.
        """
        content = self._topic.content(schema_id) or self._read(schema_id)
        if content is None:
            return None
        if content.type == "AVRO" and content.references:
            return _inline(self._topic.snapshot(), content)
        return parse_stored_schema(schema_id, content.type, content.text)

    def _read(self, schema_id: int) -> Content | None:
        self._topic.catch_up(time.monotonic())
        return self._topic.content(schema_id)


def _inline(state: Subjects, content: Content) -> Schema:
    """Return a schema with all its references written into it. Raises ``ValueError`` if one is missing."""
    try:
        texts = schema_lookup.resolve_references(state, content.references, deleted=True)
        return Schema.lenient(inline_references(content.text, texts))
    except RegistryError as error:
        raise ValueError(f"not an Avro schema: {error}") from error
