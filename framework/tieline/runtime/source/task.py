"""A source whose records can be read again: poll, ③ to ⑥, then its offsets are saved."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from typing_extensions import Self

from tieline.api import (
    RecordMetadata,
    RetriableError,
    SourceContext,
    SourceRecord,
    SourceTask,
)
from tieline.broker.port import Broker
from tieline.config.settings import Timing
from tieline.runtime.errors.failure_table import Stage
from tieline.runtime.errors.retry_state import StopRequestedError
from tieline.runtime.source.positions import Positions
from tieline.runtime.source.sender import Acknowledged, Sender
from tieline.runtime.source.source_totals import SourceTotals
from tieline.runtime.task.alarms import Alarms
from tieline.runtime.task.context import TaskSourceContext, canonical
from tieline.runtime.task.environment import TaskEnvironment
from tieline.runtime.task.ledger import Counts
from tieline.runtime.task.totals import PartitionView

log = logging.getLogger(__name__)


def acknowledging(task: SourceTask[Any]) -> Acknowledged | None:
    """Return a call of ``commit_record`` for each record, ``None`` if the task does not override it."""
    if type(task).commit_record is SourceTask.commit_record:
        return None

    def acknowledged(batch: Sequence[SourceRecord], metadata: Sequence[RecordMetadata | None]) -> None:
        for record, where in zip(batch, metadata, strict=True):
            task.commit_record(record, where)

    return acknowledged


class SavedOffsets(NamedTuple):
    """Reads what is saved of a connector. Each call may raise ``RetriableError``."""

    offsets: Callable[[], Mapping[str, str]]
    notes: Callable[[], Mapping[str, str]]

    @classmethod
    def of(cls, broker: Broker, connector: str, timeout: float) -> Self:
        """Return what reads a broker's saved offsets, within ``timeout`` seconds."""
        return cls(
            lambda: broker.source_offsets(connector, timeout), lambda: broker.source_notes(connector, timeout)
        )


class WorkerSourceTask:
    """Runs one source task from start to stop, in one thread."""

    def __init__(
        self,
        environment: TaskEnvironment,
        make_task: Callable[[SourceContext], SourceTask[Any]],
        make_sender: Callable[[Acknowledged | None], Sender],
        saved: SavedOffsets,
        timing: Timing,
    ) -> None:
        self._environment = environment
        self._task = make_task(TaskSourceContext(environment, saved.offsets))
        self._saved_notes = saved.notes
        self._make_sender = make_sender
        self._timing = timing
        self._sender: Sender | None = None

    @property
    def stats(self) -> Counts:
        """The ledger's totals."""
        return Counts() if self._sender is None else self._sender.ledger.counts

    @property
    def lag(self) -> int | None:
        """``None``: what an external system has not given yet is unknown."""
        return None

    @property
    def lag_seconds(self) -> float | None:
        """``None``, as the lag."""
        return None

    @property
    def totals(self) -> Mapping[str, PartitionView]:
        """What the records of each source partition of the connector became since the count began."""
        return {} if self._sender is None else self._sender.totals.views

    def run(self) -> None:
        """Run the task's whole life; return when asked to stop. Raises ``TaskFailedError``."""
        try:
            sender = self._sender = self._make_sender(acknowledging(self._task))
            try:
                self._load_totals(sender.totals)
                self._environment.retry(Stage.START, self._task.start)
                self._poll_all(sender)
            except StopRequestedError:
                pass
            finally:
                if sender.finish(self._timing.drain, self._timing.call_timeout):
                    self._report_saved()
        except StopRequestedError:
            pass
        finally:
            self._task.stop()

    def interrupt(self) -> None:
        """Ask the task to stop. Called from another thread."""
        self._environment.stop.set()
        self._task.interrupt()

    def _load_totals(self, totals: SourceTotals) -> None:
        """Begin to count at the saved offsets, and raise an alarm if their totals do not add up."""
        totals.load(self._environment.retry(Stage.START, self._saved_notes))
        alarms = Alarms("ledger", self._environment.counters, self._environment.clock)
        for partition, view in totals.views.items():
            if view.mismatch:
                sums = view.totals
                alarms.raise_alarm(
                    "mismatch",
                    f"the ledger of the source partition {partition} differs by {view.mismatch} records: "
                    f"{sums.received} received, {sums.delivered} delivered, {sums.dead_lettered} "
                    f"dead-lettered, {sums.filtered} filtered. Compare the topics with the source. To begin "
                    "a new count, stop the worker and set the offset to its present value with tieline "
                    "offsets set",
                )

    def _report_saved(self) -> None:
        try:
            self._task.commit()
        except RetriableError as error:
            log.warning("the source's commit failed, it is called again after the next save: %s", error)

    def _poll_all(self, sender: Sender) -> None:
        clock, timing = self._environment.clock, self._timing
        next_save = clock.now() + timing.offset_flush
        polling = self._environment.retry_state(Stage.TASK_POLL)
        while not self._environment.stop.is_set():
            sender.poll(0.1 if sender.full else 0)
            if not sender.full:
                try:
                    batch = self._task.poll(timing.max_records, timing.max_wait)
                except Exception as error:  # noqa: BLE001 - the failure table decides
                    if clock.wait(self._environment.stop, polling.after(error)):
                        break
                    continue
                if batch:
                    polling.over()
                    self._environment.activity.note_received(clock)
                    sender.send(batch, _positions(batch))
                else:
                    polling.no_error()
            if clock.now() >= next_save:
                if sender.try_save(timing.call_timeout):
                    self._report_saved()
                next_save = clock.now() + timing.offset_flush


def _positions(batch: Sequence[SourceRecord]) -> Positions:
    """Return the positions of a batch. A partition object that records share is encoded once a batch."""
    texts: dict[int, str] = {}
    partitions: list[str] = []
    last: dict[str, SourceRecord] = {}
    for record in batch:
        text = texts.get(id(record.source_partition))
        if text is None:
            text = texts[id(record.source_partition)] = canonical(record.source_partition)
        partitions.append(text)
        last[text] = record
    return Positions(
        partitions,
        {text: canonical(record.source_offset) for text, record in last.items()},
        lambda i: f"source partition {partitions[i]}, offset {canonical(batch[i].source_offset)}",
    )
