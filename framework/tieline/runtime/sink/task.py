"""A sink task: ⑦ consume, ⑧ ⑨ convert, ⑩ put, track, ⑪ commit. An outage is waited out, never skipped."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from typing import Any

from tieline.api import DataError, RetriableError, SinkContext, SinkTask, TopicPartition
from tieline.broker.port import Consumer
from tieline.broker.records import ConsumedRecord
from tieline.config.settings import Subscription, Timing
from tieline.runtime.errors.failed_records import (
    FailedRecord,
    Failure,
    Failures,
    describe_failure,
    precedes_failure,
    written_despite,
)
from tieline.runtime.errors.failure_table import Stage
from tieline.runtime.errors.retry_state import StageError, StopRequestedError, TaskFailedError
from tieline.runtime.sink.changelog import TakenOverError
from tieline.runtime.sink.commit_tracker import CommitTracker
from tieline.runtime.sink.committer import OffsetCommitter
from tieline.runtime.sink.context import SinkInputs, TaskSinkContext
from tieline.runtime.sink.conversion import Converted
from tieline.runtime.sink.rebalance import PartitionHandover
from tieline.runtime.sink.records_to_retry import RecordsToRetry
from tieline.runtime.task.environment import TaskEnvironment
from tieline.runtime.task.ledger import SKIPPED, Counts

log = logging.getLogger(__name__)

_LAG_EVERY = 5.0  # seconds
_SKIPPED_BECAUSE = {
    "expired": "the log had removed them before they were read. Raise the topic's retention.ms",
    "recreated": "the topic was deleted and recreated; the new one is read from its beginning",
    "reset": "auto.offset.reset is latest",
}


class WorkerSinkTask:
    """Runs one sink task from start to stop, in one thread.

    Records that a sink cannot take now are *held*: their partitions are paused, the consumer is polled so
    that the group keeps the task, and the same records are offered again when they are due.
    """

    def __init__(
        self,
        environment: TaskEnvironment,
        make_task: Callable[[SinkContext], SinkTask[Any]],
        inputs: SinkInputs,
        subscription: Subscription,
        timing: Timing,
    ) -> None:
        self._environment = environment
        self._inputs = inputs
        self._subscription = subscription
        self._timing = timing
        self._held = held = RecordsToRetry()
        self._tracker = tracker = CommitTracker(inputs.changelogs)
        self._context = TaskSinkContext(environment, inputs, held, tracker, timing.call_timeout)
        self._task = task = make_task(self._context)
        self._committer = OffsetCommitter(environment, task, tracker, inputs.changelogs, held, timing)
        self._handover = PartitionHandover(environment, task, inputs, held, tracker, self._committer)
        self._consumer: Consumer
        self._consuming = environment.retry_state(Stage.KAFKA_CONSUME)
        self._rejoining = environment.retry_state(Stage.KAFKA_CONSUME)
        self._putting = environment.retry_state(Stage.TASK_PUT)
        self._next_lag = 0.0
        self._lag: int | None = None

    @property
    def stats(self) -> Counts:
        """The ledger's totals."""
        return self._tracker.counts

    @property
    def lag(self) -> int | None:
        """Return how many records of the owned partitions wait: not read yet, or read and held back.

        ``None``: unknown, as a partition's end is not known. Updated every 5 s at least.
        """
        return self._lag

    def run(self) -> None:
        """Run the task's whole life; return when asked to stop. Raises ``TaskFailedError``."""
        try:
            self._environment.retry(Stage.START, self._task.start)
            while True:
                try:
                    self._run_in_group()
                    return
                except TakenOverError as error:
                    rejoin = RetriableError(f"{error}; the task rejoins its group")
                    if self._wait(self._rejoining.after(rejoin)):
                        return
        except StopRequestedError:
            pass
        finally:
            try:
                self._task.stop()
            finally:
                self._inputs.conversion.stop()

    def interrupt(self) -> None:
        """Ask the task to stop. Called from another thread."""
        self._environment.stop.set()
        self._task.interrupt()

    def _run_in_group(self) -> None:
        consumer = self._consumer = self._environment.retry(Stage.START, self._inputs.join)
        self._context.consumer = consumer
        self._held.reset(consumer)
        self._environment.activity.partitions = 0
        self._committer.reset(consumer)
        self._inputs.conversion.identities.consumed_id = consumer.topic_id
        try:
            consumer.subscribe(self._subscription.topics, self._subscription.pattern, self._handover)
            while not self._environment.stop.is_set():
                self._process_next()
        finally:
            self._leave_group()

    def _process_next(self) -> None:
        """⑦ to ⑪ for the next batch, and for held records that are due."""
        self._inputs.changelogs.check_ownership()
        batch = self._consume()
        if batch is None:
            return
        self._report_skipped()
        self._committer.check_answer()
        if batch:
            self._deliver(batch)
        if self._held and not self._held.all_paused and self._environment.clock.now() >= self._held.due:
            held = self._held.take()
            self._deliver(held)
            self._held.release({TopicPartition(r.topic, r.partition) for r in held})
        if self._context.take_commit_request() or not self._committer.wait:
            self._committer.commit()
        if self._environment.clock.now() >= self._next_lag:
            self._update_lag()

    def _consume(self) -> Sequence[ConsumedRecord] | None:
        """⑦ Return the next batch, which may be empty; ``None`` after an outage was waited out."""
        wait = min(self._timing.max_wait, self._committer.wait)
        if self._held:
            wait = min(wait, max(self._held.due - self._environment.clock.now(), 0.0))
        try:
            batch = self._consumer.poll(self._timing.max_records, wait)
        except (TaskFailedError, StopRequestedError):
            raise  # from a rebalance, within poll
        except Exception as error:  # noqa: BLE001 - the failure table decides
            self._wait(self._consuming.after(error))
            return None
        if batch:
            self._consuming.over()
            self._rejoining.over()
            self._environment.activity.note_received(self._environment.clock)
        else:
            self._consuming.no_error()
        return batch

    def _deliver(self, batch: Sequence[ConsumedRecord]) -> None:
        """⑧ ⑨ ⑩ for one batch. The task may handle an undecodable record by itself, in its place."""
        converted = self._convert(batch)
        if converted is None:
            return
        start = 0
        for index in sorted(converted.unreadable):
            if not self._put(batch[start:index], converted.part(start, index)):
                self._held.hold(batch[index:], self._held.due)
                return
            start = index
            try:
                handled = self._task.handle_undecodable(
                    self._inputs.conversion.as_consumed(batch[index]), converted.failures[index].cause
                )
            except Exception as error:  # noqa: BLE001 - the failure table decides
                self._held.hold(batch[index:], self._retry_at(error))
                return
            if not handled:
                break
            self._tracker.track_handled(batch[index])
            self._environment.activity.note_delivered(self._environment.clock)
            start = index + 1
        self._put(batch[start:], converted.part(start, len(batch)) if start else converted)

    def _convert(self, batch: Sequence[ConsumedRecord]) -> Converted | None:
        """⑧ ⑨ Convert a batch; ``None`` if it is held because of an outage."""
        try:
            converted = self._inputs.conversion.convert(batch)
            if self._task.takes_unreadable:
                converted = self._inputs.conversion.with_unreadable(converted, batch)
        except Exception as error:  # noqa: BLE001 - the failure table decides
            self._hold(batch, range(len(batch)), {}, error)
            return None
        return converted

    def _put(self, batch: Sequence[ConsumedRecord], converted: Converted) -> bool:
        """⑩ Offer a batch to the task; return false if records of it are held.

        If records failed, the task gets only what stands before the first of them in each partition.
        """
        records, indexes, failures = converted.records, converted.indexes, converted.failures
        if failures:
            before = precedes_failure(batch, failures)
            pairs = [(i, r) for i, r in zip(indexes, records, strict=True) if before[i]]
            indexes, records = [i for i, _ in pairs], [r for _, r in pairs]
        try:
            if records:
                self._task.put(records)
        except DataError as error:
            rejected = {indexes[i]: Failure(Stage.TASK_PUT, cause) for i, cause in error.failures.items()}
            failures = {**failures, **rejected}
        except Exception as error:  # noqa: BLE001 - the failure table decides
            self._hold(batch, indexes, failures, error)
            return False
        if records and not self._held:  # else some partitions are still unavailable
            self._putting.over()
        self._track(batch, indexes, failures)
        return True

    def _track(self, batch: Sequence[ConsumedRecord], kept: Collection[int], failures: Failures) -> None:
        """Enter a batch that was put. If records failed, commit what stands before them, then stop."""
        self._tracker.track(batch, kept, precedes_failure(batch, failures))
        if failures:
            self._committer.commit()
            sentence = describe_failure(failures, lambda index: self._failed_record(batch[index]))
            raise TaskFailedError(sentence, restart_helps=False) from failures[min(failures)].cause

    def _hold(
        self,
        batch: Sequence[ConsumedRecord],
        kept: Collection[int],
        failures: Failures,
        error: Exception,
    ) -> None:
        """Hold what was not written. Raises ``TaskFailedError`` if the failure table says stop.

        A failed record is held with everything behind it; it stops the task when the outage is over.
        """
        cause = error.error if isinstance(error, StageError) else error
        before, written = precedes_failure(batch, failures), written_despite(batch, cause)
        done = [is_before and is_written for is_before, is_written in zip(before, written, strict=True)]
        if any(done):
            self._putting.progressed()
        due = self._retry_at(error)
        self._tracker.track(batch, kept, done)
        self._held.hold([record for record, is_done in zip(batch, done, strict=True) if not is_done], due)

    def _retry_at(self, error: Exception) -> float:
        self._inputs.changelogs.check_ownership(error)
        return self._environment.clock.now() + self._putting.after(error)

    def _wait(self, seconds: float) -> bool:
        return self._environment.clock.wait(self._environment.stop, seconds)

    def _failed_record(self, record: ConsumedRecord) -> FailedRecord:
        skip = (
            f"stop the worker and pass over the record: tieline offsets set {self._environment.connector} "
            f"--worker FILE --topic {record.topic} --partition {record.partition} --to {record.offset + 1}"
        )
        name = f"{record.topic}-{record.partition}@{record.offset}"
        return FailedRecord(name, "everything before it is written and committed", skip)

    def _leave_group(self) -> None:
        """Leave the group: the consumer calls ``revoked``, which commits what is confirmed."""
        try:
            self._consumer.close(self._timing.call_timeout)
        except RetriableError as error:
            log.warning("could not leave the group; its session will expire: %s", error)
        finally:
            self._environment.activity.partitions = None

    def _report_skipped(self) -> None:
        for partition, first, end, reason in self._consumer.skipped():
            self._environment.counters.add(f"{SKIPPED}{reason}", end - first)
            offsets = f"offsets {first} to {end - 1} ({end - first})" if end > first else "no known offset"
            log.warning("%s-%d: skipped %s: %s", *partition, offsets, _SKIPPED_BECAUSE[reason])
            if reason == "recreated":
                self._tracker.drop([partition])
            elif partition in self._held.owned and not self._held.holds(partition):
                self._tracker.skip_to(partition, end)  # else the next start counts them again

    def _update_lag(self) -> None:
        self._next_lag = self._environment.clock.now() + min(self._timing.offset_flush, _LAG_EVERY)
        try:
            lags = list(self._consumer.lag().values())
        except RetriableError:
            lags = [None]
        known = [lag for lag in lags if lag is not None]
        self._lag = sum(known) + len(self._held) if len(known) == len(lags) else None
        if known and self._lag is not None:  # the broker has answered
            self._consuming.over()
            self._rejoining.over()
