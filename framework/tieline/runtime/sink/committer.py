"""⑪ Commits the offsets that a sink task calls safe."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple

from tieline.api import DataError, RetriableError, SinkTask, TopicPartition
from tieline.broker.port import Consumer
from tieline.config.settings import Timing
from tieline.runtime.errors.failure_table import Stage
from tieline.runtime.errors.retry_state import RetryState
from tieline.runtime.sink.changelog import TaskChangelogs
from tieline.runtime.sink.commit_tracker import CommitTracker, Store
from tieline.runtime.sink.letters import PendingLetter
from tieline.runtime.sink.records_to_retry import RecordsToRetry
from tieline.runtime.task.alarms import Alarms
from tieline.runtime.task.environment import TaskEnvironment


class _Storing(NamedTuple):
    """Offsets on their way to the broker."""

    offsets: Mapping[TopicPartition, int]
    letters: Sequence[PendingLetter]
    answer: Future[None]
    overdue: float
    """When, on the task's clock, a missing answer is an outage."""


class OffsetCommitter:
    """Asks the task which offsets are safe, and commits them. Used by the task's thread.

    The dead letters of records before these offsets are written with them. While they cannot be written, all
    partitions are paused.

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
        self._given: Sequence[PendingLetter] = ()  # to the commit that is tried now
        self._next = 0.0
        self._blocked: Sequence[PendingLetter] = ()
        """Letters without which no more records are read: they cannot be written, or too many wait."""
        self._alarms = Alarms("ledger", environment.counters, environment.clock)
        self._flushing = environment.retry_state(Stage.TASK_FLUSH)
        self._committing = environment.retry_state(Stage.OFFSET_COMMIT)

    def reset(self, consumer: Consumer) -> None:
        """Start with a new member of the group."""
        self._consumer = consumer
        self._tracker.totals.gapless = consumer.gapless
        self._storing = None
        self._blocked = ()
        self._next = self._clock.now() + self._timing.offset_flush

    def load(self, partitions: Collection[TopicPartition]) -> None:
        """Load the totals of new partitions. Raises ``RetriableError``."""
        self._tracker.load(partitions, self._consumer.committed(partitions, self._timing.call_timeout))
        self._reconcile(partitions)

    @property
    def wait(self) -> float:
        """Return the seconds until the next commit is due; 0 if it is due."""
        return max(self._next - self._clock.now(), 0.0)

    def commit(self) -> None:
        """Ask the task what is safe and begin to store it; ``check_answer`` looks for the answer."""
        self._next = self._clock.now() + self._timing.offset_flush
        self._commit(self._begin_to_store, None)
        if self._tracker.letters.full:
            self._write_early()

    def commit_and_wait(self, partitions: Collection[TopicPartition]) -> None:
        """Commit what is safe of these partitions and wait until it is stored, or has failed."""
        self._commit(self._store, frozenset(partitions))

    def check_answer(self) -> bool:
        """Return whether offsets that were on their way have been stored now."""
        if self._storing is None or not self._storing.answer.done():
            return False
        offsets, letters, answer, _ = self._storing
        self._storing = None
        error = answer.exception()
        if isinstance(error, Exception):
            self._delay_commit(error, letters)
            return False
        self._confirm(offsets, letters)
        self._reconcile(offsets)
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
        self._resume()
        delivered = self._tracker.counts.delivered
        self._tracker.settle(safe)
        if self._tracker.counts.delivered != delivered:
            self._activity.note_delivered(self._clock)
        try:
            stored = self._tracker.commit(store, only)
        except Exception as error:  # noqa: BLE001 - the failure table decides
            self._delay_commit(error, self._given)
            return
        if stored:
            self._committing.over()
            self._reconcile(self._held.owned)

    def _delay(self, retrying: RetryState, error: Exception) -> float:
        self._changelogs.check_ownership(error)
        return retrying.after(error)

    def _delay_commit(self, error: Exception, letters: Sequence[PendingLetter]) -> None:
        """Wait out an error of a commit. If it had dead letters, nothing more is read until it works."""
        if letters and isinstance(error, DataError):
            refused = self._tracker.letters.shorten_refused(letters, error)
            if refused is None:  # the next attempt has shorter ones
                self._next = self._clock.now()
                return
            error = refused
        self._delay(self._committing, error)
        if letters:
            self._block(letters)

    def _write_early(self) -> None:
        """Write letters before the task calls their offsets safe, because too many wait.

        A sink that completes files may need more records before it calls anything safe.
        """
        letters = self._tracker.letters.all()
        self._block(letters)
        if self._storing is not None:
            return  # its answer comes first
        try:
            self._tracker.letters.write(letters, self._timing.call_timeout)
        except Exception as error:  # noqa: BLE001 - the failure table decides
            self._delay_commit(error, letters)
            return
        self._tracker.letters.stored(letters)
        self._resume()

    def _block(self, letters: Sequence[PendingLetter]) -> None:
        self._blocked = letters
        self._held.pause_all()

    def _resume(self) -> None:
        """Resume all partitions, unless dead letters must be written before."""
        if all(letter.stored.done() for letter in self._blocked):
            self._blocked = ()
            self._held.resume_all()

    def _confirm(self, offsets: Mapping[TopicPartition, int], letters: Sequence[PendingLetter]) -> None:
        self._tracker.letters.stored(letters)
        self._tracker.confirm(offsets)
        if self._blocked:
            self._resume()

    def _store(self, offsets: Mapping[TopicPartition, int]) -> bool:
        letters = self._given = self._tracker.letters.before(offsets)
        records = [letter.record for letter in letters]
        self._consumer.commit(
            offsets, self._timing.call_timeout, records, self._tracker.totals.notes(offsets)
        )
        self._confirm(offsets, letters)
        return True

    def _reconcile(self, partitions: Collection[TopicPartition]) -> None:
        """Raise an alarm if the totals of partitions differ from their committed offsets."""
        for partition in partitions:
            view = self._tracker.totals.views.get(partition)
            if view is not None and view.mismatch:
                name, totals = f"{partition.topic}-{partition.partition}", view.totals
                self._alarms.raise_alarm(
                    "mismatch",
                    f"the ledger of {name} differs from the committed offset {view.offset} by "
                    f"{view.mismatch} records: {totals.received} received since offset {totals.first}, "
                    f"{totals.delivered} delivered, {totals.dead_lettered} dead-lettered, "
                    f"{totals.filtered} filtered, {totals.skipped} skipped. Compare the sink's store with "
                    "the topic. To begin a new count, stop the worker and set the offset to its present "
                    "value with tieline offsets set",
                )

    def _begin_to_store(self, offsets: Mapping[TopicPartition, int]) -> bool:
        self._given = ()
        now = self._clock.now()
        before = self._storing
        if before is not None and now < before.overdue:
            return False  # the next commit includes these
        timeout = self._timing.call_timeout
        letters = self._given = self._tracker.letters.before(offsets)
        records = [letter.record for letter in letters]
        answer = self._consumer.commit_async(offsets, records, self._tracker.totals.notes(offsets))
        self._storing = _Storing(offsets, letters, answer, now + timeout)
        if before is not None:
            raise RetriableError(f"the broker has not confirmed committed offsets for {timeout} s")
        return self.check_answer()
