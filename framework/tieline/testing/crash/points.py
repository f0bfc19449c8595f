"""Where a process can be made to die, and how the dead are kept from doing anything; see ``crash``."""

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
    ProducerRecord,
    RebalanceListener,
    Unit,
)

T = TypeVar("T")


class Step(enum.Enum):
    """Where a life can end. The number is the step's in ARCHITECTURE.md, the comment names the effect."""

    POLL = "1-poll"  # the source handed over a batch
    SPOOL = "2-spool"  # the batch is on disk
    TRANSFORM_OUT = "3-transform"
    SERIALIZE = "4-serialize"
    SCHEMA = "4-schema"  # a new schema has its id
    TOPIC = "5-topic"  # a topic was created
    PRODUCE = "5-produce"  # the broker has the records; on the local log their source offsets, too
    ACKNOWLEDGE = "6-acknowledge"  # the producer reported units as ended
    SAVE = "6-save"  # source offsets are stored, or what was acknowledged has left the spool
    COMMIT_SOURCE = "6-commit-source"  # the source was told of it
    CONSUME = "7-consume"  # the consumer handed over a batch
    DESERIALIZE = "8-deserialize"
    TRANSFORM_IN = "9-transform"
    PUT = "10-put"  # the sink took a batch
    CHANGELOG = "10-changelog"  # entries, results and offset of a sink that keeps a changelog are written
    FLUSH = "10-flush"  # the sink said what is safe (pre_commit)
    COMMIT = "11-commit"  # the group's offsets are stored


class CrashPoint(NamedTuple):
    """Die at the ``passing``-th effect of a step: just before it, or after it and before anybody heard.

    An effect is counted where something happened: a poll that finds nothing is none.
    """

    step: Step
    when: Literal["before", "after"]
    passing: int = 1

    def __str__(self) -> str:
        """As in a test's name: ``5-produce-after``."""
        return f"{self.step.value}-{self.when}"


class Crash(BaseException):
    """The process is dead. No ``Exception``, so that nobody handles it."""


class Process:
    """Whether it lives, what its steps have done, and what is left of it when it is dead."""

    def __init__(self, crash: CrashPoint | None) -> None:
        self.dead = threading.Event()
        self.done: Counter[Step] = Counter()
        self.remains = ExitStack()
        self.producers: list[Producer] = []
        self.consumers: list[Consumer] = []
        self._crash = crash
        self._lock = threading.Lock()

    def alive(self) -> None:
        """Raises ``Crash`` in whatever thread still wants to do something."""
        if self.dead.is_set():
            raise Crash("refused: the process is dead")

    def before(self, step: Step | None) -> None:
        """A call begins that may have a step's effect."""
        self.alive()
        self._die_at(step, "before")

    def after(self, step: Step | None) -> None:
        """The effect happened, whoever lives to hear of it."""
        if step is not None:
            with self._lock:
                self.done[step] += 1
            self._die_at(step, "after")
        self.alive()

    def dies_after(self, step: Step) -> bool:
        """Whether the next effect of this step is the last that happens."""
        return self._crash == (step, "after", self.done[step] + 1)

    def guarded(self, call: Callable[..., Any], step: Step | None) -> Callable[..., Any]:
        """The same call, refused to the dead; an empty answer is no effect."""

        @functools.wraps(call)
        def passed(*args: Any, **kwargs: Any) -> Any:
            self.before(step)
            result = call(*args, **kwargs)
            self.after(step if result is None or result else None)
            return result

        return passed

    def patched(self, thing: T, steps: Mapping[str, Step]) -> T:
        """Guard every public method of an object of which the runtime wants to know the class."""
        for name, _ in inspect.getmembers(type(thing), inspect.isfunction):
            if not name.startswith("_"):
                setattr(thing, name, self.guarded(getattr(thing, name), steps.get(name)))
        return thing

    def left_open(self, close: Callable[[], object]) -> None:
        """To be let go when nothing depends on it any more; errors of the dead are nobody's."""

        def closed() -> None:
            with suppress(Exception):
                close()

        self.remains.callback(closed)

    def settle(self) -> None:
        """Let what the broker was given arrive, so that the next life's ground does not change under it.

        Consumers leave their group, which a kill does not: nobody need wait for their session to expire.
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
    """Stands in front of a thing of the runtime's: every method is refused to the dead, new ones too."""

    def __init__(self, process: Process, inner: Any, steps: Mapping[str, Step] | None = None) -> None:
        self._process = process
        self._inner = inner
        self._steps = steps or {}

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        return self._process.guarded(found, self._steps.get(name)) if inspect.isroutine(found) else found


class GuardedBroker(Guarded):
    """A ``Broker``; so is what it makes guarded."""

    def __init__(self, process: Process, inner: Broker) -> None:
        super().__init__(process, inner, {"create_topic": Step.TOPIC})

    def producer(self, client_id: str, overrides: Mapping[str, str]) -> Producer:
        """See ``Broker.producer``."""
        self._process.alive()
        producer: Producer = self._inner.producer(client_id, overrides)
        self._process.producers.append(producer)
        return cast(Producer, _GuardedProducer(self._process, producer))

    def consumer(self, group: str, client_id: str, overrides: Mapping[str, str]) -> Consumer:
        """See ``Broker.consumer``."""
        self._process.alive()
        consumer: Consumer = self._inner.consumer(group, client_id, overrides)
        self._process.consumers.append(consumer)
        return cast(Consumer, _GuardedConsumer(self._process, consumer))

    @contextmanager
    def exclusive(self, topic: str, timeout: float = 10.0) -> Iterator[ExclusiveWriter]:
        """See ``Broker.exclusive``: what was appended is written when the context ends."""
        self._process.alive()
        with self._inner.exclusive(topic, timeout) as held:
            holding = _Holding(held)
            yield holding
            step = Step.SCHEMA if holding.appended else None
            self._process.before(step)
        self._process.after(step)


class _Holding:
    """An ``ExclusiveWriter``; nothing happens before its end."""

    def __init__(self, held: ExclusiveWriter) -> None:
        self._held = held
        self.appended = False

    def append(self, records: Sequence[ProducerRecord]) -> None:
        self.appended = True
        self._held.append(records)


class _GuardedProducer(Guarded):
    def __init__(self, process: Process, inner: Producer) -> None:
        super().__init__(process, inner, {"poll": Step.ACKNOWLEDGE, "save_offsets": Step.SAVE})

    def send(self, unit: Unit) -> None:
        """Returns at once, but the effect is the unit's arrival."""
        self._process.before(Step.PRODUCE)
        self._inner.send(unit)
        if self._process.dies_after(Step.PRODUCE):
            while not any(delivery.unit is unit for delivery in self._inner.poll(1.0)):
                pass  # a broker that is away is waited for, up to the test's own limit
        self._process.after(Step.PRODUCE)


class _GuardedConsumer(Guarded):
    def __init__(self, process: Process, inner: Consumer) -> None:
        super().__init__(process, inner, {"poll": Step.CONSUME, "commit": Step.COMMIT})

    def commit_async(self, offsets: Mapping[TopicPartition, int]) -> Future[None]:
        """Returns at once, but the effect is that they are stored."""
        self._process.before(Step.COMMIT)
        answer: Future[None] = self._inner.commit_async(offsets)
        if self._process.dies_after(Step.COMMIT):
            self._inner.commit(offsets, 10.0)
        self._process.after(Step.COMMIT)
        return answer

    def subscribe(self, topics: Sequence[str], pattern: str | None, listener: RebalanceListener) -> None:
        self._process.alive()
        self._inner.subscribe(topics, pattern, _GuardedListener(self._process, listener))

    def changelog(self, topic: str, partition: TopicPartition, timeout: float) -> PartitionChangelog:
        self._process.alive()
        writer: PartitionChangelog = self._inner.changelog(topic, partition, timeout)
        self._process.left_open(lambda: writer.close(1.0))
        return cast(PartitionChangelog, Guarded(self._process, writer, {"write": Step.CHANGELOG}))


class _GuardedListener:
    """The dead are not told of a rebalance."""

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
