"""The context of a sink task without a runtime: it records what the task asks for."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection
from concurrent.futures import Future
from pathlib import Path

from tieline.api import Changelog, FatalError, Schema, SinkRecord, TopicPartition
from tieline.runtime.task.connections import Connections
from tieline.testing.changelogs import Changelogs


class RecordingSinkContext:
    """A ``SinkContext`` for tests of a sink task: create the task with it, and read it afterwards.

    ``assignment``, ``stopping`` and ``dead_letters`` may be set by the test at any time. Without
    ``dead_letters``, ``report`` raises ``FatalError`` as the runtime does where no dead letter queue is
    configured; with it, the future that it returns is done, unless ``hold_reports`` is set.
    ``data_dir``: give ``tmp_path`` to a task that keeps files there. ``partition_counts``: how many
    partitions a topic has, where it is not 1. ``changelogs`` outlives a context: give it to the next one to
    see what a new owner sees.
    """

    def __init__(
        self,
        connector: str = "test",
        task: int = 0,
        *,
        dead_letters: bool = False,
        changelogs: Changelogs | None = None,
        data_dir: Path = Path("data"),
    ) -> None:
        self.connector = connector
        self.task = task
        self.data_dir = data_dir
        self.stopping = False
        self.assignment: frozenset[TopicPartition] = frozenset()
        self.dead_letters = dead_letters
        self.hold_reports = False
        self.paused: set[TopicPartition] = set()
        self.seeks: list[tuple[TopicPartition, int]] = []
        self.commit_requests = 0
        self.reported: list[tuple[SinkRecord, Exception, Future[None]]] = []
        self.counters: Counter[str] = Counter()
        self.durations: dict[str, list[float]] = {}
        self.connections = Connections(time.monotonic, lambda: time.time_ns() // 1_000_000)
        self.changelogs = changelogs or Changelogs()
        self.partition_counts: dict[str, int] = {}

    def pause(self, partitions: Collection[TopicPartition]) -> None:
        """Record the partitions in ``paused``."""
        self.paused.update(partitions)

    def resume(self, partitions: Collection[TopicPartition]) -> None:
        """Remove the partitions from ``paused``."""
        self.paused.difference_update(partitions)

    def seek(self, partition: TopicPartition, offset: int) -> None:
        """Record the call in ``seeks``, in order."""
        self.seeks.append((partition, offset))

    def request_commit(self) -> None:
        """Count the call in ``commit_requests``."""
        self.commit_requests += 1

    def report(self, record: SinkRecord, error: Exception) -> Future[None]:
        """Record the call in ``reported``."""
        if not self.dead_letters:
            raise FatalError(f"there is no dead letter queue: {error}") from error
        future: Future[None] = Future()
        if not self.hold_reports:
            future.set_result(None)
        self.reported.append((record, error, future))
        return future

    def changelog(
        self, partition: TopicPartition, schema: Schema, *, name: str = "", acts_on: str = ""
    ) -> Changelog:
        """Return a working changelog of ``changelogs``, where it can be made to fail."""
        first = self.changelogs.claim(
            name or self.connector, partition.topic, acts_on, self.partitions(partition.topic)
        )
        changelog = self.changelogs.open(partition, schema)
        changelog.first_partitions = first
        return changelog

    def partitions(self, topic: str) -> int:
        """Return ``partition_counts[topic]``, or 1 if it has no such topic."""
        return self.partition_counts.get(topic, 1)

    def connected(self, system: str) -> None:
        """Log it as the runtime does."""
        self.connections.connected(system)

    def not_connected(self, system: str, reason: str) -> None:
        """Log it as the runtime does; ``connections.all()`` returns it."""
        self.connections.not_connected(system, reason)

    def count(self, name: str, number: int = 1) -> None:
        """Add to a counter in ``counters``."""
        self.counters[name] += number

    def observe(self, name: str, seconds: float) -> None:
        """Add to a list in ``durations``."""
        self.durations.setdefault(name, []).append(seconds)
