"""⑧ ⑨ ⑩ for one batch: convert, put, and what becomes of the records that fail."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any, NoReturn

from tieline.api import DataError, SinkRecord, SinkTask
from tieline.broker.records import ConsumedRecord
from tieline.dead_letters.letter import class_name
from tieline.runtime.errors.failed_records import (
    FailedRecord,
    Failure,
    Failures,
    cause_of,
    describe_failure,
    precedes_failure,
    rejected_records,
    written_despite,
)
from tieline.runtime.errors.failure_table import Stage
from tieline.runtime.errors.retry_state import StageError, TaskFailedError
from tieline.runtime.sink.commit_tracker import CommitTracker
from tieline.runtime.sink.committer import OffsetCommitter
from tieline.runtime.sink.context import SinkInputs
from tieline.runtime.sink.conversion import Converted
from tieline.runtime.sink.records_to_retry import RecordsToRetry
from tieline.runtime.task.environment import TaskEnvironment


class BatchDelivery:
    """Takes batches to the task, and tracks what became of their records. Used by the task's thread.

    A record that can never be handled becomes a dead letter. Without a dead letter queue it stops the task,
    after everything that stands before it in its partition.
    """

    def __init__(
        self,
        environment: TaskEnvironment,
        task: SinkTask[Any],
        inputs: SinkInputs,
        held: RecordsToRetry,
        tracker: CommitTracker,
        committer: OffsetCommitter,
    ) -> None:
        self._environment = environment
        self._task = task
        self._inputs = inputs
        self._held = held
        self._tracker = tracker
        self._committer = committer
        self._maker = inputs.letters.maker
        self._name = class_name(type(task))
        self._handles_undecodable = type(task).handle_undecodable is not SinkTask.handle_undecodable
        self._putting = environment.retry_state(Stage.TASK_PUT)

    def deliver(self, batch: Sequence[ConsumedRecord]) -> None:
        """Deliver one batch. The task may handle an undecodable record by itself, in its place.

        If so many dead letters wait that they must be written, that begins once, at the end of the batch.

        Raises ``TaskFailedError``, ``TakenOverError``.
        """
        converted = self._convert(batch)
        if converted is not None:
            self._deliver(batch, converted)
        if self._inputs.letters.full:
            self._committer.commit()

    def _deliver(self, batch: Sequence[ConsumedRecord], converted: Converted) -> None:
        start = 0
        for index in sorted(converted.unreadable) if self._handles_undecodable else ():
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
            if handled:
                self._tracker.track_handled(batch[index])
                self._environment.activity.note_delivered(self._environment.clock)
                start = index + 1
            elif self._maker is None:
                break
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

        If records failed, the task gets only what may be handled despite that.
        """
        records, indexes, failures = converted.records, converted.indexes, converted.failures
        if failures:
            allowed = self._allowed(batch, failures)
            pairs = [(i, r) for i, r in zip(indexes, records, strict=True) if allowed[i]]
            indexes, records = [i for i, _ in pairs], [r for _, r in pairs]
        self._inputs.letters.keep_batch(batch)
        try:
            rejected = self._offer(records) if records else {}
        except Exception as error:  # noqa: BLE001 - the failure table decides
            self._hold(batch, indexes, failures, error)
            return False
        if rejected:
            causes = {indexes[i]: Failure(Stage.TASK_PUT, c, self._name) for i, c in rejected.items()}
            failures = {**failures, **causes}
        if records and not self._held:  # else some partitions are still unavailable
            self._putting.over()
        self._track(batch, indexes, failures, self._allowed(batch, failures))
        return True

    def _offer(self, records: Sequence[SinkRecord]) -> dict[int, Exception]:
        """Call ``put``; return the causes of the records that it rejects, by index.

        If its error names none of them, the batch is halved until one record is left. Raises every other
        error.
        """
        try:
            self._task.put(records)
        except DataError as error:
            if rejected := rejected_records(error, len(records)):
                return rejected
            if len(records) == 1:
                return {0: cause_of(error)}
        else:
            return {}
        half = len(records) // 2
        rejected = self._offer(records[:half])
        more = self._offer(records[half:])
        return rejected | {half + index: cause for index, cause in more.items()}

    def _allowed(self, batch: Sequence[ConsumedRecord], failures: Failures) -> list[bool]:
        """Return for each record whether it may be handled although some failed.

        Without a dead letter queue these are the records before the first failed one of their partition; with
        one, those before the record at which too many have failed.
        """
        if self._maker is None:
            return precedes_failure(batch, failures)
        if not failures:
            return [True] * len(batch)
        number_of = self._counted(batch, range(len(batch)))
        exceeded = self._maker.window.exceeded_at([number_of[i] for i in failures if i in number_of])
        if exceeded is None:
            return [True] * len(batch)
        end = list(number_of)[exceeded]
        return [index < end for index in range(len(batch))]

    def _track(
        self, batch: Sequence[ConsumedRecord], kept: Collection[int], failures: Failures, done: Sequence[bool]
    ) -> None:
        """Enter the records of a batch that are done, with the dead letters of those that failed.

        Stop the task after a commit if a record failed that is not done. Raises ``TaskFailedError``.
        """
        dead: Failures = {}
        if self._maker is not None:
            dead = {index: failure for index, failure in sorted(failures.items()) if done[index]}
            for index, failure in dead.items():
                self._inputs.letters.add(batch[index], failure)
            self._advance_window(batch, done, dead)
        self._tracker.track(batch, kept, done, dead)
        if len(dead) < len(failures):
            self._committer.commit()
            left = {index: failure for index, failure in failures.items() if index not in dead}
            self._stop_at(batch, left)

    def _advance_window(
        self, batch: Sequence[ConsumedRecord], done: Sequence[bool], dead: Collection[int]
    ) -> None:
        assert self._maker is not None
        if not dead:
            self._maker.window.advance(sum(done))
            return
        number_of = self._counted(batch, [index for index, is_done in enumerate(done) if is_done])
        self._maker.window.advance(len(number_of), [number_of[i] for i in dead if i in number_of])

    def _counted(self, batch: Sequence[ConsumedRecord], indexes: Iterable[int]) -> dict[int, int]:
        """Return the number of each of these records in the window. A replay has none."""
        assert self._maker is not None
        replays = self._maker.replay_topic
        counted = (index for index in indexes if batch[index].topic != replays)
        return {index: number for number, index in enumerate(counted)}

    def _stop_at(self, batch: Sequence[ConsumedRecord], failures: Failures) -> NoReturn:
        sentence = describe_failure(failures, lambda index: self._failed_record(batch[index]))
        if self._maker is not None:
            sentence = f"{self._maker.describe_exceeded()}. {sentence}"
        raise TaskFailedError(sentence, restart_helps=False) from failures[min(failures)].cause

    def _hold(
        self,
        batch: Sequence[ConsumedRecord],
        kept: Collection[int],
        failures: Failures,
        error: Exception,
    ) -> None:
        """Hold what was not written. Raises ``TaskFailedError`` if the failure table says stop.

        A failed record that is held fails again when the outage is over.
        """
        cause = error.error if isinstance(error, StageError) else error
        allowed, written = self._allowed(batch, failures), written_despite(batch, cause)
        done = [is_allowed and is_written for is_allowed, is_written in zip(allowed, written, strict=True)]
        if any(done):
            self._putting.progressed()
        due = self._retry_at(error)
        done_failures = {index: failure for index, failure in failures.items() if done[index]}
        self._track(batch, kept, done_failures, done)
        self._held.hold([record for record, is_done in zip(batch, done, strict=True) if not is_done], due)

    def _retry_at(self, error: Exception) -> float:
        self._inputs.changelogs.check_ownership(error)
        return self._environment.clock.now() + self._putting.after(error)

    def _failed_record(self, record: ConsumedRecord) -> FailedRecord:
        skip = (
            f"stop the worker and pass over the record: tieline offsets set {self._environment.connector} "
            f"--worker FILE --topic {record.topic} --partition {record.partition} --to {record.offset + 1}"
        )
        name = f"{record.topic}-{record.partition}@{record.offset}"
        return FailedRecord(name, "everything before it is written and committed", skip)
