"""A sink: ⑦ consume, ⑧ ⑨ convert, ⑩ put and flush, ⑪ commit; an outage is waited out, never skipped."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, NamedTuple

from tieline.api import (
    Changelog,
    DataError,
    FatalError,
    FencedError,
    RetriableError,
    Schema,
    SinkContext,
    SinkRecord,
    SinkTask,
    TopicPartition,
)
from tieline.broker.port import ConsumedRecord, Consumer
from tieline.config.settings import Subscription, Timing
from tieline.runtime.errors.batch import describe_failure, precedes_failure, written_despite
from tieline.runtime.errors.retry import RetryState, StageError, StopRequested, TaskFailedError
from tieline.runtime.errors.table import Stage
from tieline.runtime.sink.changelog import TaskChangelogs
from tieline.runtime.sink.claims import USED_BEFORE, Claims
from tieline.runtime.sink.commit_tracker import CommitTracker, Store
from tieline.runtime.sink.conversion import Converted, SinkConversion
from tieline.runtime.sink.held_records import HeldRecords
from tieline.runtime.task.context import TaskContext
from tieline.runtime.task.environment import TaskEnvironment
from tieline.runtime.task.ledger import SKIPPED, Counts

log = logging.getLogger(__name__)

_LAG_EVERY = 5.0  # seconds
_SKIPPED_BECAUSE = {
    "expired": "the log had removed them before they were read. Raise the topic's retention.ms",
    "recreated": "the topic was deleted and made again; the new one is read from its beginning",
    "reset": "auto.offset.reset is latest",
}


@dataclass(frozen=True)
class SinkInputs:
    """Where a sink's records come from, and what is kept beside them."""

    join: Callable[[], Consumer]
    conversion: SinkConversion
    changelogs: TaskChangelogs
    claims: Claims


class _Storing(NamedTuple):
    """Offsets on their way to the broker."""

    offsets: Mapping[TopicPartition, int]
    answer: Future[None]
    overdue: float
    """When, on the task's clock, no answer yet is an outage."""


class _TakenOver(Exception):
    """Somebody else owns what the group says is ours; joining it again tells who is right."""


class WorkerSinkTask(TaskContext):
    """Runs one sink task from start to shutdown, in one thread; it is its own ``SinkContext``.

    Records that a sink could not take now are *held*: their partitions are paused, the consumer is
    polled so that the group keeps the task, and the same records are offered again when they are due.
    """

    def __init__(
        self,
        environment: TaskEnvironment,
        make_task: Callable[[SinkContext], SinkTask[Any]],
        inputs: SinkInputs,
        timing: Timing,
    ) -> None:
        super().__init__(environment)
        self._join = inputs.join
        self._conversion = inputs.conversion
        self._changelogs = inputs.changelogs
        self._claims = inputs.claims
        self._timing = timing
        self._progress = CommitTracker(inputs.changelogs)
        self._flow = HeldRecords()
        self._consumer: Consumer
        self._commit_requested = False
        self._next_commit = self._next_lag = 0.0
        self._storing: _Storing | None = None
        self._away = environment.retry_state(Stage.TASK_PUT)
        self._flush_away = environment.retry_state(Stage.TASK_FLUSH)
        self._commit_away = environment.retry_state(Stage.OFFSET_COMMIT)
        self._lag: int | None = None
        self._task = make_task(self)

    @property
    def counts(self) -> Counts:
        """The ledger's totals."""
        return self._progress.counts

    @property
    def lag(self) -> int | None:
        """Return how many records of the owned partitions wait: not read yet, or read and held back.

        ``None``: unknown, as a partition's end is not known. As of the last look, every 5 s at least.
        """
        return self._lag

    def run(self, subscription: Subscription) -> None:
        """The whole life of the task. Raises ``TaskFailedError``; returns when asked to stop."""
        outvoted = self._environment.retry_state(Stage.KAFKA_CONSUME)
        try:
            self._environment.retry(Stage.START, self._task.start)
            while True:
                try:
                    self._run_in_group(subscription)
                    return
                except _TakenOver as error:
                    wait = outvoted.after(RetriableError(f"{error}; the task joins its group again"))
                    if self._environment.clock.wait(self._environment.stop, wait):
                        return
        except StopRequested:
            pass
        finally:
            try:
                self._task.stop()
            finally:
                self._conversion.stop()

    def interrupt(self) -> None:
        """From another thread: ask the task to stop."""
        self._environment.stop.set()
        self._task.interrupt()

    # SinkContext: what the task may ask.

    @property
    def assignment(self) -> frozenset[TopicPartition]:
        """The partitions owned now."""
        return self._flow.owned

    def pause(self, partitions: Collection[TopicPartition]) -> None:
        """Stop fetching."""
        self._flow.pause(partitions)

    def resume(self, partitions: Collection[TopicPartition]) -> None:
        """Fetch again, unless records of a partition are held."""
        self._flow.resume(partitions)

    def seek(self, partition: TopicPartition, offset: int) -> None:
        """Read on at this offset; what is in flight of the partition is forgotten."""
        self._flow.forget([partition])
        self._progress.forget([partition])
        self._consumer.seek(partition, offset)

    def request_commit(self) -> None:
        """Commit now; the next batch may come before it is stored."""
        self._commit_requested = True

    def changelog(
        self, partition: TopicPartition, schema: Schema, *, name: str = "", acts_on: str = ""
    ) -> Changelog:
        """Take it over. Raises ``RetriableError``, ``AlreadyOwned``."""
        owner = name or self.connector
        first = 0
        if acts_on:
            claim = self._claims.claim(
                owner, partition.topic, acts_on, lambda: self._first_partitions(partition.topic)
            )
            first = claim.partitions
        changelog = self._changelogs.take_over(self._consumer, partition, schema, owner)
        changelog.first_partitions = first
        return changelog

    def _first_partitions(self, topic: str) -> int:
        """How many partitions a topic has that is claimed now; an offset says that it was read before."""
        number = self.partitions(topic)
        places = [TopicPartition(topic, n) for n in range(number)]
        return USED_BEFORE if self._consumer.committed(places, self._timing.call_timeout) else number

    def partitions(self, topic: str) -> int:
        """See ``SinkContext.partitions``."""
        return self._conversion.partitions(topic)

    def report(self, record: SinkRecord, error: Exception) -> Future[None]:
        """No dead letter queue yet: the task stops at this record."""
        where = f"{record.topic}-{record.partition}@{record.offset}"
        raise FatalError(
            f"the record {where} cannot be handled: {error}; there is no dead letter queue"
        ) from error

    # RebalanceListener: told by the consumer, in this thread.

    def assigned(self, partitions: Collection[TopicPartition]) -> None:
        """The task owns more."""
        self._conversion.forget_topics()
        log.info("partitions assigned", extra={"partitions": _names(partitions)})
        self._flow.gained(partitions)
        self._environment.retry(Stage.START, lambda: self._task.open(partitions))

    def revoked(self, partitions: Collection[TopicPartition]) -> None:
        """Flush within the time there is, commit only what is confirmed, let go."""
        log.info("partitions revoked", extra={"partitions": _names(partitions)})
        try:
            self._commit(only=frozenset(partitions), store=self._store)
        except _TakenOver as error:
            log.warning("%s; what was in flight comes again", error)
        finally:
            fenced = self._changelogs.fenced() & set(partitions)
            self._let_go(fenced, lost=True)
            self._let_go([p for p in partitions if p not in fenced], lost=False)

    def lost(self, partitions: Collection[TopicPartition]) -> None:
        """Somebody else may own them: commit nothing."""
        log.warning(
            "partitions lost; what was in flight comes again", extra={"partitions": _names(partitions)}
        )
        self._let_go(partitions, lost=True)

    def _let_go(self, partitions: Collection[TopicPartition], *, lost: bool) -> None:
        if not partitions:
            return
        self._flow.gone(partitions)
        try:
            self._task.close(partitions, lost)
        except RetriableError as error:  # they are gone anyway, and what was not confirmed comes again
            log.warning("the sink could not let go of partitions: %s", error)
        finally:
            self._progress.settle({})  # what the task wrote in its changelogs until then
            self._progress.forget(partitions)
            self._changelogs.close(partitions)

    def _run_in_group(self, subscription: Subscription) -> None:
        self._consumer = self._environment.retry(Stage.START, self._join)
        self._flow.joined(self._consumer)
        self._conversion.consumed_id = self._consumer.topic_id
        self._storing = None
        try:
            self._consumer.subscribe(subscription.topics, subscription.pattern, self)
            self._consume()
        finally:
            self._leave()

    def _consume(self) -> None:
        clock, stop, flow = self._environment.clock, self._environment.stop, self._flow
        away = self._environment.retry_state(Stage.KAFKA_CONSUME)
        self._next_commit = clock.now() + self._timing.offset_flush
        while not stop.is_set():
            if fenced := self._changelogs.fenced():  # heard by a thread of the task's own, perhaps
                raise _TakenOver(f"{', '.join(_names(fenced))}: somebody else has taken over the changelog")
            wait = self._timing.max_wait
            if flow.holding:
                wait = min(wait, max(flow.due - clock.now(), 0.0))
            wait = min(wait, max(self._next_commit - clock.now(), 0.0))
            try:
                batch = self._consumer.poll(self._timing.max_records, wait)
            except (TaskFailedError, StopRequested):
                raise  # of a rebalance, told by poll
            except Exception as error:
                if clock.wait(stop, away.after(error)):
                    return
                continue
            away.over()
            self._note_skipped()
            self._check_commit()
            if batch:
                self._deliver(batch)
            if flow.holding and not flow.stopped and clock.now() >= flow.due:
                held = flow.take()
                self._deliver(held)
                flow.release({TopicPartition(r.topic, r.partition) for r in held})
            if self._commit_requested or clock.now() >= self._next_commit:
                self._next_commit = clock.now() + self._timing.offset_flush
                self._commit()
            if clock.now() >= self._next_lag:
                self._update_lag()

    def _deliver(self, batch: Sequence[ConsumedRecord]) -> None:
        """⑧ ⑨ ⑩ for one batch. A record that cannot be read is the task's to refuse, in its place."""
        try:
            converted = self._conversion.convert(batch)
            if self._task.takes_unreadable:
                converted = self._conversion.with_unreadable(converted, batch)
        except Exception as error:
            self._hold(batch, range(len(batch)), {}, error)
            return
        start = 0
        for index in sorted(converted.unreadable):
            if not self._offer(batch[start:index], converted.part(start, index)):
                self._flow.hold(batch[index:], self._flow.due)
                return
            start = index
            try:
                refused = self._task.handle_undecodable(
                    self._conversion.unread(batch[index]), converted.failures[index]
                )
            except Exception as error:
                self._flow.hold(batch[index:], self._due_after(self._away, error))
                return
            if not refused:
                break
            self._progress.refused(batch[index])
            start = index + 1
        self._offer(batch[start:], converted.part(start, len(batch)) if start else converted)

    def _offer(self, batch: Sequence[ConsumedRecord], converted: Converted) -> bool:
        """⑩; false if something is held. Data errors: all before them is written and committed, then stop."""
        stage, failures = converted.stage, converted.failures
        indexes, records = converted.indexes, converted.records
        if failures:  # only what stands before the first bad record of each partition
            before = precedes_failure(batch, failures)
            pairs = [(i, r) for i, r in zip(indexes, records, strict=True) if before[i]]
            indexes, records = [i for i, _ in pairs], [r for _, r in pairs]
        try:
            if records:
                self._task.put(records)
        except DataError as error:
            stage = Stage.TASK_PUT
            failures = failures | {indexes[i]: cause for i, cause in error.failures.items()}
        except Exception as error:
            self._hold(batch, indexes, failures, error)
            return False
        if not self._flow.holding:  # else some partitions are still away: their outage goes on
            self._away.over()
        self._progress.written(batch, indexes, precedes_failure(batch, failures))
        if failures:
            self._commit()
            index = min(failures)
            sentence = describe_failure(
                stage, batch[index], failures[index], len(failures), self._environment.connector
            )
            raise TaskFailedError(sentence) from failures[index]
        return True

    def _hold(
        self,
        batch: Sequence[ConsumedRecord],
        kept: Collection[int],
        failures: Mapping[int, Exception],
        error: Exception,
    ) -> None:
        """Hold what was not written, to offer it again. Raises ``TaskFailedError`` if the table says stop.

        A bad record (``failures``) is kept, with all behind it: it stops the task when nothing is away.
        """
        cause = error.error if isinstance(error, StageError) else error
        done = [
            before and written
            for before, written in zip(
                precedes_failure(batch, failures), written_despite(batch, cause), strict=True
            )
        ]
        if any(done):
            self._away.progressed()
        due = self._due_after(self._away, error)
        self._progress.written(batch, kept, done)
        self._flow.hold([record for record, is_done in zip(batch, done, strict=True) if not is_done], due)

    def _due_after(self, patience: RetryState, error: Exception) -> float:
        """When to try again. Raises ``TaskFailedError`` where the table says stop, ``_TakenOver``."""
        if isinstance(error, FencedError) and self._changelogs.fenced():
            raise _TakenOver(str(error)) from error
        return self._environment.clock.now() + patience.after(error)

    def _commit(self, only: frozenset[TopicPartition] | None = None, store: Store | None = None) -> None:
        """⑪: ask the task what is safe, settle it, store the offsets. An outage leaves all as it is.

        ``store``: none begins to store them; the answer is looked for after each ``poll``.
        """
        self._commit_requested = False
        offsets = self._progress.reached(only)
        try:
            safe = self._task.pre_commit(offsets) if offsets else {}
        except Exception as error:  # the sink cannot confirm what it was given: no more until it can
            self._next_commit = self._due_after(self._flush_away, error)
            self._flow.stop()
            return
        self._flush_away.over()
        self._flow.go_on()
        self._progress.settle(safe)
        try:
            something = self._progress.commit(store or self._begin_to_store, only)
        except Exception as error:
            self._due_after(self._commit_away, error)  # the next commit is the next attempt
            return
        if something:
            self._commit_away.over()

    def _store(self, offsets: Mapping[TopicPartition, int]) -> bool:
        self._consumer.commit(offsets, self._timing.call_timeout)
        return True

    def _begin_to_store(self, offsets: Mapping[TopicPartition, int]) -> bool:
        now = self._environment.clock.now()
        before = self._storing
        if before is not None and now < before.overdue:
            return False  # the next commit takes these along
        overdue = now + self._timing.call_timeout
        self._storing = _Storing(offsets, self._consumer.commit_async(offsets), overdue)
        if before is not None:
            raise RetriableError(
                f"offsets are on their way for {self._timing.call_timeout} s without an answer"
            )
        return self._check_commit()

    def _check_commit(self) -> bool:
        """Whether the offsets that were on their way are stored now."""
        if self._storing is None or not self._storing.answer.done():
            return False
        offsets, answer, _ = self._storing
        self._storing = None
        error = answer.exception()
        if isinstance(error, Exception):
            self._due_after(self._commit_away, error)  # the next commit is the next attempt
            return False
        self._progress.stored(offsets)
        self._commit_away.over()
        return True

    def _leave(self) -> None:
        """Leave the group: ``revoked`` commits what is confirmed."""
        try:
            self._consumer.close(self._timing.call_timeout)
        except RetriableError as error:
            log.warning("the group was not told of the end, it waits for the session to expire: %s", error)

    def _note_skipped(self) -> None:
        for at, first, end, reason in self._consumer.skipped():
            topic, partition = at
            self._environment.counters.add(f"{SKIPPED}{reason}", end - first)
            offsets = f"offsets {first} to {end - 1} ({end - first})" if end > first else "no known offset"
            log.warning("%s-%d: skipped %s: %s", topic, partition, offsets, _SKIPPED_BECAUSE[reason])
            if reason == "recreated":
                self._progress.forget([at])
            elif at in self._flow.owned and not self._flow.holds(at):
                self._progress.passed_over(at, end)  # else the next start counts them again

    def _update_lag(self) -> None:
        self._next_lag = self._environment.clock.now() + min(self._timing.offset_flush, _LAG_EVERY)
        try:
            lags = list(self._consumer.lag().values())
        except RetriableError:
            lags = [None]
        known = [lag for lag in lags if lag is not None]
        self._lag = sum(known) + self._flow.held if len(known) == len(lags) else None


def _names(partitions: Collection[TopicPartition]) -> list[str]:
    return sorted(f"{topic}-{partition}" for topic, partition in partitions)
