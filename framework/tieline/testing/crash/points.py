"""The points where a process can die, and guards that stop a dead process from doing anything."""

from __future__ import annotations

import enum
import functools
import inspect
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, Literal, NamedTuple, TypeVar, cast

from tieline.api import TopicPartition
from tieline.broker.port import (
    Broker,
    Consumer,
    ExclusiveWriter,
    PartitionChangelog,
    Producer,
    RebalanceListener,
)
from tieline.broker.records import ProducerRecord, Unit

T = TypeVar("T")


class Step(enum.Enum):
    """A step at which a life can end: its number in ARCHITECTURE.md; the comment names the effect."""

    POLL = "1-poll"  # the source returned a batch
    SPOOL = "2-spool"  # the batch is on disk
    TRANSFORM_OUT = "3-transform"
    SERIALIZE = "4-serialize"
    SCHEMA = "4-schema"  # a new schema has its id
    TOPIC = "5-topic"  # a topic was created
    PRODUCE = "5-produce"  # the broker has the records; on the local log their source offsets, too
    ACKNOWLEDGE = "6-acknowledge"  # the producer reported units as ended
    SAVE = "6-save"  # source offsets are stored, or acknowledged records are deleted from the spool
    COMMIT_SOURCE = "6-commit-source"  # the source was notified
    CONSUME = "7-consume"  # the consumer returned a batch
    DESERIALIZE = "8-deserialize"
    TRANSFORM_IN = "9-transform"
    PUT = "10-put"  # the sink took a batch
    CHANGELOG = "10-changelog"  # entries, results and offset of a sink that keeps a changelog are written
    FLUSH = "10-flush"  # the sink returned the safe offsets (pre_commit)
    LETTERS = "11-letters"  # dead letters of a sink are written, and the offsets behind them are not
    COMMIT = "11-commit"  # the group's offsets are stored


class CrashPoint(NamedTuple):
    """Die at the ``passing``-th effect of a step: just before it, or after it and before its caller returns.

    Only calls with an effect count: a poll that returns nothing has none.
    """

    step: Step
    when: Literal["before", "after"]
    passing: int = 1

    def __str__(self) -> str:
        """Return the name that a test has for it: ``5-produce-after``."""
        return f"{self.step.value}-{self.when}"


class Crash(BaseException):
    """The process is dead. Not an ``Exception``, so that no code handles it."""


class Process:
    """A worker's process: whether it lives, what its steps have done, and what a crash leaves open."""

    def __init__(self, crash: CrashPoint | None) -> None:
        self.dead = threading.Event()
        self.done: Counter[Step] = Counter()
        self.remains = ExitStack()
        self.producers: list[Producer] = []
        self.consumers: list[Consumer] = []
        self._crash = crash
        self._lock = threading.Lock()

    def check_alive(self) -> None:
        """Raise ``Crash`` in the calling thread if the process is dead."""
        if self.dead.is_set():
            raise Crash("refused: the process is dead")

    def before(self, step: Step | None) -> None:
        """Note that a call begins that may have a step's effect. Raises ``Crash``."""
        self.check_alive()
        self._die_at(step, "before")

    def after(self, step: Step | None) -> None:
        """Note that the effect has happened. Raises ``Crash``."""
        if step is not None:
            with self._lock:
                self.done[step] += 1
            self._die_at(step, "after")
        self.check_alive()

    def dies_after(self, step: Step) -> bool:
        """Return whether the next effect of this step is the last that happens."""
        return self._crash == (step, "after", self.done[step] + 1)

    def guard(self, call: Callable[..., Any], step: Step | None) -> Callable[..., Any]:
        """Return the same call, which a dead process cannot make. An empty result has no effect."""

        @functools.wraps(call)
        def guarded(*args: Any, **kwargs: Any) -> Any:
            self.before(step)
            result = call(*args, **kwargs)
            self.after(step if result is None or result else None)
            return result

        return guarded

    def guard_methods(self, thing: T, steps: Mapping[str, Step]) -> T:
        """Guard every public method of an object in place; the runtime depends on its class."""
        for name, _ in inspect.getmembers(type(thing), inspect.isfunction):
            if not name.startswith("_"):
                setattr(thing, name, self.guard(getattr(thing, name), steps.get(name)))
        return thing

    def close_later(self, close: Callable[[], object]) -> None:
        """Close something when nothing depends on it any more; its errors are ignored."""

        def closed() -> None:
            with suppress(Exception):
                close()

        self.remains.callback(closed)

    def settle(self) -> None:
        """Wait until the broker has everything that was sent: the next life starts from a fixed state.

        Consumers leave their group, so that the test need not wait for their session to expire.
        """
        deadline = time.monotonic() + 10
        for producer in self.producers:
            with suppress(Exception):
                while producer.in_flight_bytes and time.monotonic() < deadline:
                    producer.poll(0.1)
                producer.close(0)
        for consumer in self.consumers:
            with suppress(Exception):
                consumer.close(2.0)

    def _die_at(self, step: Step | None, when: Literal["before", "after"]) -> None:
        with self._lock:
            if step is None or self.dead.is_set():
                return
            if self._crash == (step, when, self.done[step] + (when == "before")):
                self.dead.set()
                raise Crash(str(self._crash))


class Guarded:
    """Wraps a part of the runtime: a dead process cannot call any of its methods."""

    def __init__(self, process: Process, inner: Any, steps: Mapping[str, Step] | None = None) -> None:
        self._process = process
        self._inner = inner
        self._steps = steps or {}

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._inner, name)
        if inspect.isroutine(attribute):
            return self._process.guard(attribute, self._steps.get(name))
        return attribute


class GuardedBroker(Guarded):
    """A ``Broker`` whose producers and consumers are guarded, too."""

    def __init__(self, process: Process, inner: Broker) -> None:
        super().__init__(process, inner, {"create_topic": Step.TOPIC})

    def producer(self, client_id: str, overrides: Mapping[str, str]) -> Producer:
        """Return a guarded producer."""
        self._process.check_alive()
        producer: Producer = self._inner.producer(client_id, overrides)
        self._process.producers.append(producer)
        return cast(Producer, _GuardedProducer(self._process, producer))

    def consumer(
        self,
        group: str,
        client_id: str,
        overrides: Mapping[str, str],
        producer_overrides: Mapping[str, str] | None = None,
    ) -> Consumer:
        """Return a guarded consumer."""
        self._process.check_alive()
        consumer: Consumer = self._inner.consumer(group, client_id, overrides, producer_overrides)
        self._process.consumers.append(consumer)
        write = functools.partial(_write, self._inner)
        return cast(Consumer, _GuardedConsumer(self._process, consumer, write))

    @contextmanager
    def exclusive(self, topic: str, timeout: float = 10.0) -> Iterator[ExclusiveWriter]:
        """Become the topic's only writer. What is appended is written when the context ends."""
        self._process.check_alive()
        with self._inner.exclusive(topic, timeout) as inner:
            writer = _GuardedWriter(inner)
            yield writer
            step = Step.SCHEMA if writer.appended else None
            self._process.before(step)
        self._process.after(step)


class _GuardedWriter:
    """An ``ExclusiveWriter``, which writes at its end."""

    def __init__(self, inner: ExclusiveWriter) -> None:
        self._inner = inner
        self.appended = False

    def append(self, records: Sequence[ProducerRecord]) -> None:
        self.appended = True
        self._inner.append(records)


class _GuardedProducer(Guarded):
    def __init__(self, process: Process, inner: Producer) -> None:
        super().__init__(process, inner, {"poll": Step.ACKNOWLEDGE, "save_offsets": Step.SAVE})

    def send(self, unit: Unit) -> None:
        """Send a unit. The call returns at once, but its effect is the unit's arrival."""
        self._process.before(Step.PRODUCE)
        self._inner.send(unit)
        if self._process.dies_after(Step.PRODUCE):
            while not any(delivery.unit is unit for delivery in self._inner.poll(1.0)):
                pass  # an unavailable broker is waited for, up to the test's own limit
        self._process.after(Step.PRODUCE)


class _GuardedConsumer(Guarded):
    """``write`` writes records as a commit does before its offsets."""

    def __init__(
        self, process: Process, inner: Consumer, write: Callable[[Sequence[ProducerRecord]], None]
    ) -> None:
        super().__init__(process, inner, {"poll": Step.CONSUME})
        self._write = write

    def commit(
        self,
        offsets: Mapping[TopicPartition, int],
        timeout: float,
        records: Sequence[ProducerRecord] = (),
        notes: Mapping[TopicPartition, str] | None = None,
    ) -> None:
        """Commit, after its records."""
        self._write_letters(records)
        self._process.before(Step.COMMIT)
        self._inner.commit(offsets, timeout, records, notes)
        self._process.after(Step.COMMIT)

    def commit_async(
        self,
        offsets: Mapping[TopicPartition, int],
        records: Sequence[ProducerRecord] = (),
        notes: Mapping[TopicPartition, str] | None = None,
    ) -> Future[None]:
        """Commit. The call returns at once, but its effect is that the offsets are stored."""
        self._write_letters(records)
        self._process.before(Step.COMMIT)
        if self._process.dies_after(Step.COMMIT):
            self._inner.commit(offsets, 10.0, records, notes)
            self._process.after(Step.COMMIT)
        answer: Future[None] = self._inner.commit_async(offsets, records, notes)
        self._process.after(Step.COMMIT)
        return answer

    def _write_letters(self, records: Sequence[ProducerRecord]) -> None:
        """Die before the records of a commit, or between them and the offsets, as Kafka allows."""
        step = Step.LETTERS if records else None
        self._process.before(step)
        if step is not None and self._process.dies_after(step):
            self._write(records)
        self._process.after(step)

    def subscribe(self, topics: Sequence[str], pattern: str | None, listener: RebalanceListener) -> None:
        self._process.check_alive()
        self._inner.subscribe(topics, pattern, _GuardedListener(self._process, listener))

    def changelog(self, topic: str, partition: TopicPartition, timeout: float) -> PartitionChangelog:
        self._process.check_alive()
        writer: PartitionChangelog = self._inner.changelog(topic, partition, timeout)
        self._process.close_later(lambda: writer.close(1.0))
        return cast(PartitionChangelog, Guarded(self._process, writer, {"write": Step.CHANGELOG}))


def _write(broker: Broker, records: Sequence[ProducerRecord]) -> None:
    producer = broker.producer("letters", {})
    producer.send(Unit(records))
    while not producer.poll(1.0):
        pass  # an unavailable broker is waited for, up to the test's own limit
    producer.close(0)


class _GuardedListener:
    """Ignores rebalances of a dead process."""

    def __init__(self, process: Process, listener: RebalanceListener) -> None:
        self._process = process
        self._listener = listener

    def assigned(self, partitions: Collection[TopicPartition]) -> None:
        if not self._process.dead.is_set():
            self._listener.assigned(partitions)

    def revoked(self, partitions: Collection[TopicPartition]) -> None:
        if not self._process.dead.is_set():
            self._listener.revoked(partitions)

    def lost(self, partitions: Collection[TopicPartition]) -> None:
        if not self._process.dead.is_set():
            self._listener.lost(partitions)
