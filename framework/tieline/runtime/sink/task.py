"""A sink task: ⑦ consume, ⑧ ⑨ convert, ⑩ put, track, ⑪ commit. An outage is waited out, never skipped."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tieline.api import RetriableError, SinkContext, SinkTask, TopicPartition
from tieline.broker.port import Consumer
from tieline.broker.records import ConsumedRecord
from tieline.config.settings import Subscription, Timing
from tieline.runtime.errors.failure_table import Stage
from tieline.runtime.errors.retry_state import StopRequestedError, TaskFailedError
from tieline.runtime.sink.changelog import TakenOverError
from tieline.runtime.sink.commit_tracker import CommitTracker
from tieline.runtime.sink.committer import OffsetCommitter
from tieline.runtime.sink.context import SinkInputs, TaskSinkContext
from tieline.runtime.sink.delivery import BatchDelivery
from tieline.runtime.sink.rebalance import PartitionHandover
from tieline.runtime.sink.records_to_retry import RecordsToRetry
from tieline.runtime.task.environment import TaskEnvironment
from tieline.runtime.task.ledger import SKIPPED, Counts
from tieline.runtime.task.totals import PartitionView

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
        self._tracker = tracker = CommitTracker(inputs.changelogs, inputs.letters, environment.clock)
        self._context = TaskSinkContext(environment, inputs, held, tracker, timing.call_timeout)
        self._task = task = make_task(self._context)
        self._context.task_type = type(task)
        self._committer = OffsetCommitter(environment, task, tracker, inputs.changelogs, held, timing)
        self._handover = PartitionHandover(environment, task, inputs, held, tracker, self._committer)
        self._delivery = BatchDelivery(environment, task, inputs, held, tracker, self._committer)
        self._consumer: Consumer
        self._consuming = environment.retry_state(Stage.KAFKA_CONSUME)
        self._rejoining = environment.retry_state(Stage.KAFKA_CONSUME)
        self._next_lag = 0.0
        self._lag: int | None = None
        self._offered_ms: int | None = None
        """The timestamp of the batch that the task is offered now."""
        self._read_ms: int | None = None
        """The timestamp of the last record that was read."""

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

    @property
    def lag_seconds(self) -> float | None:
        """Return how old the oldest record is that is not committed; 0 if all are, ``None`` if unknown."""
        oldest = [time for time in (self._tracker.oldest_ms, self._offered_ms) if time is not None]
        if not oldest and self._lag:
            oldest = [time for time in [self._read_ms] if time is not None]  # the next one is hardly older
        if oldest:
            return max(0.0, (self._environment.clock.wall_ms() - min(oldest)) / 1000)
        return None if self._lag is None or self._lag else 0.0

    @property
    def totals(self) -> Mapping[TopicPartition, PartitionView]:
        """Return what the records of each partition became, as its committed offset says.

        Of a task that has left its group, the partitions that it owned before. Any thread may read it.
        """
        views = self._tracker.totals.views
        if self._environment.activity.partitions is None:
            return dict(views)
        return {partition: views[partition] for partition in self._held.owned if partition in views}

    def run(self) -> None:
        """Run the task's whole life; return when asked to stop. Raises ``TaskFailedError``."""
        try:
            self._environment.retry(Stage.START, self._inputs.letters.create_topics)
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
            self._offered_ms, self._read_ms = batch[0].timestamp, batch[-1].timestamp
            self._delivery.deliver(batch)
        self._offered_ms = self._held.oldest_ms
        if self._held and not self._held.all_paused and self._environment.clock.now() >= self._held.due:
            held = self._held.take()
            self._delivery.deliver(held)
            self._held.release({TopicPartition(r.topic, r.partition) for r in held})
            self._offered_ms = self._held.oldest_ms
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

    def _wait(self, seconds: float) -> bool:
        return self._environment.clock.wait(self._environment.stop, seconds)

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
            elif partition in self._held.owned:  # committed, else the next start counts them again
                self._tracker.skip(partition, first, end, commit=not self._held.holds(partition))

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
