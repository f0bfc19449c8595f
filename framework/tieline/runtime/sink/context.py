"""What the runtime offers a running sink task."""

from __future__ import annotations

from collections.abc import Callable, Collection
from concurrent.futures import Future
from dataclasses import dataclass, field

from tieline.api import Changelog, FatalError, Schema, SinkRecord, TopicPartition
from tieline.broker.port import Consumer
from tieline.runtime.sink.changelog import TaskChangelogs
from tieline.runtime.sink.claims import USED_BEFORE, Claims
from tieline.runtime.sink.commit_tracker import CommitTracker
from tieline.runtime.sink.conversion import SinkConversion
from tieline.runtime.sink.letters import SinkLetters
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
    letters: SinkLetters = field(default_factory=lambda: SinkLetters(None))


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
        self.task_type: type = object
        """The task's class; set by the runtime."""

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
        self._tracker.seek(partition, offset)
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
        """Take over a partition's changelog. Raises ``RetriableError``, ``DataDirInUseError``.

        A dead letter queue is refused: the offset that the task writes could pass a letter that still waits.
        """
        if self._inputs.letters.maker is not None:
            raise FatalError(
                f"{self.connector} keeps a changelog and answers its records: a dead letter queue is not "
                "possible. Remove errors.tolerance"
            )
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
        """Make a record a dead letter. The future ends with a commit of its partition, inside the runtime.

        Raises ``FatalError`` if there is no dead letter queue, or too many records have failed.
        """
        letters = self._inputs.letters
        partition = record.consumed_from
        where = (
            f"the record {partition.topic}-{partition.partition}@{record.offset} cannot be handled: {error}"
        )
        if letters.maker is None:
            raise FatalError(
                f"{where}; there is no dead letter queue. Set errors.tolerance=all and "
                "errors.deadletterqueue.topic.name, or filter the record with a transform"
            ) from error
        known, future = letters.report(record, error, self.task_type)
        counts = not known and partition.topic != letters.maker.replay_topic
        if counts and letters.maker.window.fail_late([0]) is not None:
            raise FatalError(f"{letters.maker.describe_exceeded()}. {where}") from error
        return future

    def _first_partitions(self, topic: str) -> int:
        """Return the number for a new claim. A committed offset shows that the topic was read before."""
        number = self.partitions(topic)
        partitions = [TopicPartition(topic, n) for n in range(number)]
        return USED_BEFORE if self.consumer.committed(partitions, self._timeout) else number
