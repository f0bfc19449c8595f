"""What the runtime offers a running sink task."""

from __future__ import annotations

from collections.abc import Callable, Collection
from concurrent.futures import Future
from dataclasses import dataclass

from tieline.api import Changelog, FatalError, Schema, SinkRecord, TopicPartition
from tieline.broker.port import Consumer
from tieline.runtime.sink.changelog import TaskChangelogs
from tieline.runtime.sink.claims import USED_BEFORE, Claims
from tieline.runtime.sink.commit_tracker import CommitTracker
from tieline.runtime.sink.conversion import SinkConversion
from tieline.runtime.sink.partition_counts import PartitionCounts
from tieline.runtime.sink.records_to_retry import RecordsToRetry
from tieline.runtime.task.context import TaskContext
from tieline.runtime.task.environment import TaskEnvironment


@dataclass(frozen=True)
class SinkInputs:
    """Where a sink's records come from, and what is kept beside them."""

    join: Callable[[], Consumer]
    conversion: SinkConversion
    changelogs: TaskChangelogs
    claims: Claims
    partitions: PartitionCounts


class TaskSinkContext(TaskContext):
    """Offers a sink task what the runtime can do for it, as ``tieline.api.SinkContext``.

    Used by the task's thread.
    """

    def __init__(
        self,
        environment: TaskEnvironment,
        inputs: SinkInputs,
        held: RecordsToRetry,
        tracker: CommitTracker,
        timeout: float,
    ) -> None:
        super().__init__(environment)
        self._inputs = inputs
        self._held = held
        self._tracker = tracker
        self._timeout = timeout
        self._commit_requested = False
        self.consumer: Consumer
        """The task's present member of the group; set by the runtime."""

    @property
    def assignment(self) -> frozenset[TopicPartition]:
        """The partitions that the task owns now."""
        return self._held.owned

    def pause(self, partitions: Collection[TopicPartition]) -> None:
        """Stop fetching from these partitions until ``resume``."""
        self._held.pause(partitions)

    def resume(self, partitions: Collection[TopicPartition]) -> None:
        """Fetch again, except from partitions of which records are held."""
        self._held.resume(partitions)

    def seek(self, partition: TopicPartition, offset: int) -> None:
        """Continue at this offset; what is in flight of the partition is dropped."""
        self._held.drop([partition])
        self._tracker.drop([partition])
        self.consumer.seek(partition, offset)

    def request_commit(self) -> None:
        """Commit soon; the next batch may come before the offsets are stored."""
        self._commit_requested = True

    def take_commit_request(self) -> bool:
        """Return whether the task has requested a commit since the last call."""
        requested, self._commit_requested = self._commit_requested, False
        return requested

    def changelog(
        self, partition: TopicPartition, schema: Schema, *, name: str = "", acts_on: str = ""
    ) -> Changelog:
        """Take over a partition's changelog. Raises ``RetriableError``, ``DataDirInUseError``."""
        owner = name or self.connector
        first = 0
        if acts_on:
            topic = partition.topic
            claim = self._inputs.claims.claim(owner, topic, acts_on, lambda: self._first_partitions(topic))
            first = claim.partitions
        changelog = self._inputs.changelogs.take_over(self.consumer, partition, schema, owner)
        changelog.first_partitions = first
        return changelog

    def partitions(self, topic: str) -> int:
        """Return how many partitions a topic has. Raises ``RetriableError``."""
        return self._inputs.partitions.of(topic)

    def report(self, record: SinkRecord, error: Exception) -> Future[None]:
        """Stop the task at this record: there is no dead letter queue yet. Raises ``FatalError``."""
        where = f"{record.topic}-{record.partition}@{record.offset}"
        raise FatalError(
            f"the record {where} cannot be handled: {error}; there is no dead letter queue"
        ) from error

    def _first_partitions(self, topic: str) -> int:
        """Return the number for a new claim. A committed offset shows that the topic was read before."""
        number = self.partitions(topic)
        partitions = [TopicPartition(topic, n) for n in range(number)]
        return USED_BEFORE if self.consumer.committed(partitions, self._timeout) else number
