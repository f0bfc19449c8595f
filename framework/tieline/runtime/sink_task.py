"""A sink: ⑦ consume, ⑧ ⑨ convert, ⑩ put and flush, ⑪ commit; an outage is waited out, never skipped."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

from tieline.api import (
    Changelog,
    Config,
    DataError,
    Fatal,
    Retriable,
    Schema,
    SinkRecord,
    SinkTask,
    TopicPartition,
)
from tieline.broker.port import ConsumedRecord, Consumer
from tieline.runtime.context import TaskContext
from tieline.runtime.delivery import Counts, Ledger
from tieline.runtime.failure import Stage
from tieline.runtime.inbound import Inbound
from tieline.runtime.scope import Scope, StageError, Stopping, TaskFailed
from tieline.runtime.settings import Pace, Subscription

log = logging.getLogger(__name__)


class WorkerSinkTask(TaskContext):
    """Runs one sink task from start to shutdown, in one thread; it is its own ``SinkContext``.

    Records that a sink could not take now are *held*: their partitions are paused, the consumer is
    polled so that the group keeps the task, and the same records are offered again when they are due.
    """

    def __init__(
        self,
        scope: Scope,
        task: SinkTask[Any],
        config: Config,
        make_consumer: Callable[[], Consumer],
        inbound: Inbound,
        pace: Pace,
    ) -> None:
        super().__init__(scope)
        self._task = task
        self._config = config
        self._make_consumer = make_consumer
        self._inbound = inbound
        self._pace = pace
        self._ledger: Ledger[TopicPartition, int] = Ledger()
        self._consumer: Consumer
        self._assignment: frozenset[TopicPartition] = frozenset()
        self._held: list[ConsumedRecord] = []
        self._due = 0.0
        self._paused: set[TopicPartition] = set()
        self._positions: dict[TopicPartition, int] = {}
        self._commit_requested = False
        self._next_commit = 0.0
        self._unflushed = False
        self._away = scope.patience(Stage.TASK_PUT)
        self._flush_away = scope.patience(Stage.TASK_FLUSH)
        self._commit_away = scope.patience(Stage.OFFSET_COMMIT)
        self._lag: int | None = None

    @property
    def counts(self) -> Counts:
        """The ledger's totals."""
        return self._ledger.counts

    @property
    def lag(self) -> int | None:
        """Records between what was consumed and the end of the owned partitions, as last seen."""
        return self._lag

    def run(self, subscription: Subscription) -> None:
        """The whole life of the task. Raises ``TaskFailed``; returns when asked to stop."""
        try:
            self._scope.patiently(Stage.START, lambda: self._task.start(self, self._config))
            self._consumer = self._scope.patiently(Stage.START, self._make_consumer)
            try:
                self._consumer.subscribe(subscription.topics, subscription.pattern, self)
                self._consume()
            finally:
                self._leave()
        except Stopping:
            pass
        finally:
            try:
                self._task.shutdown()
            finally:
                self._inbound.stop()

    def ask_to_stop(self) -> None:
        """From another thread: ask the task to stop."""
        self._scope.stop.set()
        self._task.stop()

    # SinkContext: what the task may ask.

    @property
    def assignment(self) -> frozenset[TopicPartition]:
        """The partitions owned now."""
        return self._assignment

    def pause(self, partitions: Collection[TopicPartition]) -> None:
        """Stop fetching."""
        self._paused.update(partitions)
        self._consumer.pause(partitions)

    def resume(self, partitions: Collection[TopicPartition]) -> None:
        """Fetch again, unless records of a partition are held."""
        self._paused.difference_update(partitions)
        held = {TopicPartition(r.topic, r.partition) for r in self._held}
        if not self._unflushed:
            self._consumer.resume([p for p in partitions if p not in held])

    def seek(self, partition: TopicPartition, offset: int) -> None:
        """Read on at this offset; what is in flight of the partition is forgotten."""
        self._forget([partition])
        self._consumer.seek(partition, offset)

    def request_commit(self) -> None:
        """Commit before the next batch."""
        self._commit_requested = True

    def changelog(self, partition: TopicPartition, schema: Schema) -> Changelog:
        """Not on a broker yet."""
        raise Fatal(f"the changelog of {partition.topic}-{partition.partition}: no home keeps one yet")

    def report(self, record: SinkRecord, error: Exception) -> Future[None]:
        """No dead letter queue yet: the task stops at this record."""
        where = f"{record.topic}-{record.partition}@{record.offset}"
        raise Fatal(
            f"the record {where} cannot be handled: {error}; there is no dead letter queue"
        ) from error

    # RebalanceListener: told by the consumer, in this thread.

    def assigned(self, partitions: Collection[TopicPartition]) -> None:
        """The task owns more."""
        self._assignment |= frozenset(partitions)
        self._inbound.forget_topics()
        log.info("partitions assigned", extra={"partitions": _names(partitions)})
        if self._unflushed:
            self._consumer.pause(partitions)
        self._scope.patiently(Stage.START, lambda: self._task.open(partitions))

    def revoked(self, partitions: Collection[TopicPartition]) -> None:
        """Flush within the time there is, commit only what is confirmed, let go."""
        log.info("partitions revoked", extra={"partitions": _names(partitions)})
        try:
            self._commit(only=frozenset(partitions))
        finally:
            self._let_go(partitions, lost=False)

    def lost(self, partitions: Collection[TopicPartition]) -> None:
        """Somebody else may own them: commit nothing."""
        log.warning(
            "partitions lost; what was in flight comes again", extra={"partitions": _names(partitions)}
        )
        self._let_go(partitions, lost=True)

    def _let_go(self, partitions: Collection[TopicPartition], *, lost: bool) -> None:
        self._forget(partitions)
        self._assignment -= frozenset(partitions)
        self._paused.difference_update(partitions)
        try:
            self._task.close(partitions, lost)
        except Retriable as error:  # they are gone anyway, and what was not confirmed comes again
            log.warning("the sink could not let go of partitions: %s", error)

    def _forget(self, partitions: Collection[TopicPartition]) -> None:
        gone = set(partitions)
        self._held = [r for r in self._held if TopicPartition(r.topic, r.partition) not in gone]
        for partition in gone:
            self._positions.pop(partition, None)
            self._ledger.release(partition)

    def _consume(self) -> None:
        clock, stop = self._scope.clock, self._scope.stop
        away = self._scope.patience(Stage.KAFKA_CONSUME)
        self._next_commit = clock.now() + self._pace.offset_flush
        while not stop.is_set():
            wait = self._pace.max_wait
            if self._held:
                wait = min(wait, max(self._due - clock.now(), 0.0))
            wait = min(wait, max(self._next_commit - clock.now(), 0.0))
            try:
                batch = self._consumer.poll(self._pace.max_records, wait)
            except (TaskFailed, Stopping):
                raise  # of a rebalance, told by poll
            except Exception as error:
                if clock.wait(stop, away.after(error)):
                    return
                continue
            away.over()
            if batch:
                self._deliver(batch)
            if self._held and not self._unflushed and clock.now() >= self._due:
                held, self._held = self._held, []
                self._deliver(held)
                self._resume(held)
            if self._commit_requested or clock.now() >= self._next_commit:
                self._next_commit = clock.now() + self._pace.offset_flush
                self._commit()
                self._look_at_lag()

    def _deliver(self, batch: Sequence[ConsumedRecord]) -> None:
        """⑧ ⑨ ⑩ for one batch. Data errors: everything before them is written and committed, then stop."""
        try:
            converted = self._inbound.convert(batch)
        except Exception as error:
            self._hold(batch, range(len(batch)), {}, error)
            return
        stage, failures = converted.stage, converted.failures
        indexes, records = converted.indexes, converted.records
        if failures:  # only what stands before the first bad record of each partition
            before = _before(batch, failures)
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
            return
        if not self._held:  # else some partitions are still away: their outage goes on
            self._away.over()
        self._written(batch, indexes, _before(batch, failures))
        if failures:
            self._commit()
            index = min(failures)
            sentence = _sentence(stage, batch[index], failures[index], len(failures))
            raise TaskFailed(sentence) from failures[index]

    def _written(self, batch: Sequence[ConsumedRecord], kept: Collection[int], done: Sequence[bool]) -> None:
        """Enter into the ledger the records that are done; those that are not in ``kept`` were filtered."""
        written = [record[:3] for record, is_done in zip(batch, done, strict=True) if is_done]
        count = Counter((topic, partition) for topic, partition, _ in written)
        filtered: Counter[tuple[str, int]] = Counter()
        if len(kept) < len(batch):
            alive = set(kept)
            filtered.update(
                (record.topic, record.partition)
                for index, record in enumerate(batch)
                if done[index] and index not in alive
            )
        last = {(topic, partition): offset for topic, partition, offset in written}
        for at, number in count.items():
            partition = TopicPartition(*at)
            self._positions[partition] = last[at] + 1
            self._ledger.dispatch(partition, last[at] + 1, number, filtered[at])

    def _hold(
        self,
        batch: Sequence[ConsumedRecord],
        kept: Collection[int],
        failures: Mapping[int, Exception],
        error: Exception,
    ) -> None:
        """Keep what was not written, to be offered again. Raises ``TaskFailed`` where the table says stop.

        A bad record (``failures``) is kept, with all behind it: it stops the task when nothing is away.
        """
        cause = error.error if isinstance(error, StageError) else error
        self._due = self._scope.clock.now() + self._away.after(error)
        done = [
            before and _was_written(record, cause)
            for record, before in zip(batch, _before(batch, failures), strict=True)
        ]
        self._written(batch, kept, done)
        held = [record for record, is_done in zip(batch, done, strict=True) if not is_done]
        self._held.extend(held)
        self._consumer.pause({TopicPartition(r.topic, r.partition) for r in held})

    def _resume(self, delivered: Sequence[ConsumedRecord]) -> None:
        self._let_flow({TopicPartition(r.topic, r.partition) for r in delivered})

    def _let_flow(self, partitions: Collection[TopicPartition]) -> None:
        still = {TopicPartition(r.topic, r.partition) for r in self._held} | self._paused
        self._consumer.resume([p for p in partitions if p in self._assignment and p not in still])

    def _commit(self, only: frozenset[TopicPartition] | None = None) -> None:
        """⑪: ask the task what is safe, settle it, store the offsets. An outage leaves all as it is."""
        self._commit_requested = False
        offsets = {p: o for p, o in self._positions.items() if only is None or p in only}
        try:
            safe = self._task.pre_commit(offsets) if offsets else {}
        except Exception as error:
            self._wait_to_flush(error)
            return
        self._flush_away.over()
        if self._unflushed:
            self._unflushed = False
            self._let_flow(self._assignment)
        for partition, offset in safe.items():
            for entry in self._ledger.entries(partition):
                if entry.offset > offset:
                    break
                self._ledger.settle(entry, delivered=entry.outstanding)
        committable = {p: o for p, o in self._ledger.committable().items() if only is None or p in only}
        if not committable:
            return
        try:
            self._consumer.commit(committable, self._pace.call_timeout)
        except Exception as error:
            self._commit_away.after(error)  # the next commit is the next attempt
            return
        self._commit_away.over()
        self._ledger.committed(committable)
        for partition, offset in committable.items():
            if self._positions.get(partition) == offset:
                del self._positions[partition]

    def _wait_to_flush(self, error: Exception) -> None:
        """The sink cannot confirm what it was given: it is given no more until it can."""
        self._next_commit = self._scope.clock.now() + self._flush_away.after(error)
        self._unflushed = True
        self._consumer.pause(self._assignment)

    def _leave(self) -> None:
        """Leave the group: ``revoked`` commits what is confirmed."""
        try:
            self._consumer.close(self._pace.call_timeout)
        except Retriable as error:
            log.warning("the group was not told of the end, it waits for the session to expire: %s", error)

    def _look_at_lag(self) -> None:
        try:
            self._lag = sum(self._consumer.lag().values())
        except Retriable:
            self._lag = None


def _before(batch: Sequence[ConsumedRecord], failures: Mapping[int, Exception]) -> list[bool]:
    """Whether each record stands before the first failed one of its partition."""
    if not failures:
        return [True] * len(batch)
    stopped: set[tuple[str, int]] = set()
    out: list[bool] = []
    for index, record in enumerate(batch):
        if index in failures:
            stopped.add((record.topic, record.partition))
        out.append((record.topic, record.partition) not in stopped)
    return out


def _was_written(record: ConsumedRecord, error: Exception) -> bool:
    """Whether a record of a batch that ended with this error was written nevertheless."""
    if not isinstance(error, Retriable):
        return False
    partition = TopicPartition(record.topic, record.partition)
    if error.partitions is not None and partition not in error.partitions:
        return True
    return record.offset < error.reached.get(partition, 0)


def _sentence(stage: Stage, record: ConsumedRecord, cause: Exception, failures: int) -> str:
    more = f" (and {failures - 1} more in this batch)" if failures > 1 else ""
    where = f"{record.topic}-{record.partition}@{record.offset}"
    if stage in (Stage.KEY_CONVERTER, Stage.VALUE_CONVERTER):  # a transform comes too late for these
        way_out = "Correct the converter's settings, or commit an offset behind it for the sink's group"
    else:
        way_out = "Repair or remove the record, or filter it with a transform"
    return (
        f"{stage.value}: the record {where} cannot be handled: {cause}{more}; everything before it "
        f"is written and committed. {way_out}"
    )


def _names(partitions: Collection[TopicPartition]) -> list[str]:
    return sorted(f"{topic}-{partition}" for topic, partition in partitions)
