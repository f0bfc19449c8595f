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

from tieline.api import DataError, Fatal, Retriable, Schema, TielineError
from tieline.broker.port import Broker, ConsumedRecord, ProducerRecord, TopicReader
from tieline.registry import rules
from tieline.registry.errors import RegistryError
from tieline.registry.formats import inlined
from tieline.registry.reading import readable_schema
from tieline.registry.records import Content, Malformed, decode, encode
from tieline.registry.subjects import Conflict, Subjects

TOPIC = "_schemas"
T = TypeVar("T")
log = logging.getLogger(__name__)

_TIMEOUT = 10.0  # seconds, of one call to the broker
_TURNS = 8  # how often a write that another instance fenced is tried
_PAUSE = 0.05
_POLL = 0.2  # seconds until a follower notices that it is to stop


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
        self._lock = threading.RLock()  # of the state; never held while the broker is asked
        self._reading = threading.Lock()
        self._writing = threading.Lock()
        self._position: dict[int, int] = {}
        self._own: deque[tuple[bytes, bytes | None]] = deque()
        self._caught_up = 0.0
        self._exists = False
        self._follower: _Follower | None = None

    @property
    def cluster_id(self) -> str:
        """The broker's."""
        return self._broker.cluster_id

    def content(self, schema_id: int) -> Content | None:
        """What is known in memory of an id, without a lock."""
        return self._state.content(schema_id)

    def peek(self, question: Callable[[Subjects], T]) -> T:
        """The answer from memory, as it is."""
        with self._lock:
            return question(self._state)

    def ask(self, question: Callable[[Subjects], T]) -> T:
        """The answer of a pure question; where it is that something is not there, the topic is read first.

        Raises ``RegistryError``, ``Retriable``.
        """
        asked = time.monotonic()
        try:
            return self.peek(question)
        except RegistryError as error:
            if error.status != 404:
                raise
        self.catch_up(asked)
        return self.peek(question)

    def change(self, rule: Callable[[Subjects], rules.Decision]) -> rules.Decision:
        """Decide, and write what was decided. Raises ``RegistryError``, ``Retriable``, ``Fatal``.

        Decided twice: first without fencing other instances, since most requests change nothing.
        """
        asked = time.monotonic()
        try:
            decision = self.peek(rule)
            if not decision.events:
                return decision
        except RegistryError:
            pass  # of a state that may be old
        self.catch_up(asked)
        decision = self.peek(rule)
        if not decision.events:
            return decision
        self._ensure_topic()
        for turn in range(1, _TURNS + 1):
            try:
                with self._writing:
                    return self._write(rule)
            except Retriable:
                if turn == _TURNS:
                    raise
            time.sleep(random.uniform(0.5, 1.5) * _PAUSE * turn)  # another instance is writing: let it
        raise AssertionError("unreachable")

    def catch_up(self, since: float | None = None) -> None:
        """Read to the end of the topic, unless somebody began to after ``since``. Raises ``Retriable``."""
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

        Raises ``Fatal``.
        """
        self._follower = _Follower(self._broker, self._visit)
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

    def _write(self, rule: Callable[[Subjects], rules.Decision]) -> rules.Decision:
        with self._broker.exclusive(TOPIC, _TIMEOUT) as held:
            self.catch_up()
            decision = self.peek(rule)
            records = [encode(event) for event in decision.events]
            held.append([ProducerRecord(TOPIC, value, key, partition=0) for key, value in records])
        # Taken from here: Kafka shows a transaction a moment after its end. When these records come by,
        # they are passed over.
        with self._lock:
            for event in decision.events:
                self._state.apply(event)
            self._own.extend(records)
        return decision

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
            except (Malformed, Conflict) as error:
                self.skipped += 1
                where = f"{record.topic}-{record.partition}@{record.offset}"
                log.warning("a record of the registry's topic is passed over: %s", error, extra={"at": where})


class _Follower:
    """A thread that reads the topic as it grows."""

    def __init__(self, broker: Broker, visit: Callable[[ConsumedRecord], None]) -> None:
        self.well = False
        self._broker = broker
        self._visit = visit
        self._stop = threading.Event()
        self._at_end = threading.Event()
        self._refused: TielineError | None = None
        self._thread = threading.Thread(target=self._run, name=f"{TOPIC} follower", daemon=True)

    def start(self, timeout: float) -> bool:
        """Whether all that the topic held was read in time; it goes on in any case."""
        self._thread.start()
        read = self._at_end.wait(timeout)
        if self._refused is not None:
            raise self._refused
        return read

    def close(self) -> None:
        self._stop.set()
        self._thread.join(_TIMEOUT)

    def _run(self) -> None:
        reader: TopicReader | None = None
        pause = _PAUSE
        while not self._stop.is_set():
            try:
                reader = reader or self._broker.reader(TOPIC, since=0, timeout=_TIMEOUT)
                for record in reader.poll(1_000, 0.0 if not reader.at_end else _POLL):
                    self._visit(record)
                self.well, pause = True, _PAUSE
                if reader.at_end:
                    self._at_end.set()
            except Retriable as error:
                if self.well:
                    log.warning("the registry's topic cannot be followed now: %s", error)
                self.well = False
                self._stop.wait(pause)
                pause = min(2 * pause, 5.0)
            except TielineError as error:
                self.well = False
                self._refused = error
                log.error("the registry's topic cannot be followed any more: %s", error)
                break
        self._at_end.set()
        if reader is not None:
            reader.close(_POLL)


class TopicSchemaStore:
    """A ``SchemaStore``: what the worker's converters ask of the topic. Safe for many threads.

    A new schema must keep the compatibility that is configured for its subject, as through HTTP.
    """

    def __init__(self, broker: Broker, topic: SchemaTopic | None = None) -> None:
        self._topic = topic or SchemaTopic(broker)

    def register(self, subject: str, schema: Schema) -> int:
        """The id of this schema under this subject; new ones get the next free id.

        Raises ``Retriable``; ``Fatal`` where the registry's rules forbid it, with the reasons.
        """
        asked = rules.Request(Content("AVRO", schema.text))
        known = self._topic.peek(lambda state: rules.lookup(state, subject, asked.content))
        if known is not None:  # it is canonical, and need not be parsed again
            return known.id
        try:
            return int(self._topic.change(lambda state: rules.register(state, subject, asked)).answer.id)
        except RegistryError as error:
            raise Fatal(f"{schema.name} cannot be registered under {subject}: {error}") from error
        except DataError as error:
            cause = next(iter(error.failures.values()), error)
            raise Fatal(f"{schema.name} cannot be registered under {subject}: {cause}") from error

    def schema(self, schema_id: int) -> Schema | None:
        """The schema of this id, which somebody else may have just registered. Raises ``Retriable``.

        Makes no topic: who only looks leaves nothing behind.
        """
        content = self._topic.content(schema_id) or self._asked(schema_id)
        if content is None:
            return None
        if content.type == "AVRO" and content.references:
            return self._topic.peek(lambda state: _whole(state, content))
        return readable_schema(schema_id, content.type, content.text)

    def _asked(self, schema_id: int) -> Content | None:
        self._topic.catch_up(time.monotonic())
        return self._topic.content(schema_id)


def _whole(state: Subjects, content: Content) -> Schema:
    """A schema with all that it refers to written into it. Raises ``ValueError`` where that is not there."""
    try:
        return Schema.lenient(inlined(content.text, rules.resolve(state, content.references, deleted=True)))
    except RegistryError as error:
        raise ValueError(f"not an Avro schema: {error}") from error
