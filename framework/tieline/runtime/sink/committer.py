"""⑪ Commits the offsets that a sink task calls safe."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from concurrent.futures import Future
from typing import Any, NamedTuple

from tieline.api import RetriableError, SinkTask, TopicPartition
from tieline.broker.port import Consumer
from tieline.config.settings import Timing
from tieline.runtime.errors.failure_table import Stage
from tieline.runtime.errors.retry_state import RetryState
from tieline.runtime.sink.changelog import TaskChangelogs
from tieline.runtime.sink.commit_tracker import CommitTracker, Store
from tieline.runtime.sink.records_to_retry import RecordsToRetry
from tieline.runtime.task.environment import TaskEnvironment


class _Storing(NamedTuple):
    """Offsets on their way to the broker."""

    offsets: Mapping[TopicPartition, int]
    answer: Future[None]
    overdue: float
    """When, on the task's clock, a missing answer is an outage."""


class OffsetCommitter:
    """Asks the task which offsets are safe, and commits them. Used by the task's thread.

    An outage leaves everything as it is; the next commit is the next attempt. Every method may raise
    ``TaskFailedError``, and ``TakenOverError`` if another task owns a changelog.
    """

    def __init__(
        self,
        environment: TaskEnvironment,
        task: SinkTask[Any],
        tracker: CommitTracker,
        changelogs: TaskChangelogs,
        held: RecordsToRetry,
        timing: Timing,
    ) -> None:
        self._clock = environment.clock
        self._activity = environment.activity
        self._task = task
        self._tracker = tracker
        self._changelogs = changelogs
        self._held = held
        self._timing = timing
        self._consumer: Consumer
        self._storing: _Storing | None = None
        self._next = 0.0
        self._flushing = environment.retry_state(Stage.TASK_FLUSH)
        self._committing = environment.retry_state(Stage.OFFSET_COMMIT)

    def reset(self, consumer: Consumer) -> None:
        """Start with a new member of the group."""
        self._consumer = consumer
        self._storing = None
        self._next = self._clock.now() + self._timing.offset_flush

    @property
    def wait(self) -> float:
        """Return the seconds until the next commit is due; 0 if it is due."""
        return max(self._next - self._clock.now(), 0.0)

    def commit(self) -> None:
        """Ask the task what is safe and begin to store it; ``check_answer`` looks for the answer."""
        self._next = self._clock.now() + self._timing.offset_flush
        self._commit(self._begin_to_store, None)

    def commit_and_wait(self, partitions: Collection[TopicPartition]) -> None:
        """Commit what is safe of these partitions and wait until it is stored, or has failed."""
        self._commit(self._store, frozenset(partitions))

    def check_answer(self) -> bool:
        """Return whether offsets that were on their way have been stored now."""
        if self._storing is None or not self._storing.answer.done():
            return False
        offsets, answer, _ = self._storing
        self._storing = None
        error = answer.exception()
        if isinstance(error, Exception):
            self._delay(self._committing, error)
            return False
        self._tracker.confirm(offsets)
        self._committing.over()
        return True

    def _commit(self, store: Store, only: frozenset[TopicPartition] | None) -> None:
        offsets = self._tracker.uncommitted(only)
        try:
            safe = self._task.pre_commit(offsets) if offsets else {}
        except Exception as error:  # noqa: BLE001 - the failure table decides
            self._next = self._clock.now() + self._delay(self._flushing, error)
            self._held.pause_all()  # the sink cannot confirm what it has: it gets no more until it can
            return
        if offsets:
            self._flushing.over()
        self._held.resume_all()
        delivered = self._tracker.counts.delivered
        self._tracker.settle(safe)
        if self._tracker.counts.delivered != delivered:
            self._activity.note_delivered(self._clock)
        try:
            stored = self._tracker.commit(store, only)
        except Exception as error:  # noqa: BLE001 - the failure table decides
            self._delay(self._committing, error)
            return
        if stored:
            self._committing.over()

    def _delay(self, retrying: RetryState, error: Exception) -> float:
        self._changelogs.check_ownership(error)
        return retrying.after(error)

    def _store(self, offsets: Mapping[TopicPartition, int]) -> bool:
        self._consumer.commit(offsets, self._timing.call_timeout)
        return True

    def _begin_to_store(self, offsets: Mapping[TopicPartition, int]) -> bool:
        now = self._clock.now()
        before = self._storing
        if before is not None and now < before.overdue:
            return False  # the next commit includes these
        timeout = self._timing.call_timeout
        self._storing = _Storing(offsets, self._consumer.commit_async(offsets), now + timeout)
        if before is not None:
            raise RetriableError(f"the broker has not confirmed committed offsets for {timeout} s")
        return self.check_answer()
