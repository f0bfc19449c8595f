"""① → ②: the receiver of a source that cannot be read again. It only receives; the pump does the rest."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tieline.api import RetriableError, SourceContext, SourceRecord, SourceTask
from tieline.config.settings import Timing
from tieline.runtime.errors.failure_table import Stage
from tieline.runtime.errors.retry_state import StopRequestedError
from tieline.runtime.source.repeats import Repeats
from tieline.runtime.spool.spool import Spool
from tieline.runtime.task.context import SpooledSourceContext
from tieline.runtime.task.environment import TaskEnvironment
from tieline.runtime.task.ledger import Counts
from tieline.runtime.task.totals import PartitionView

log = logging.getLogger(__name__)


class Receiver:
    """① → ②, one thread: polls the task and commits each batch to the spool, whatever happens behind it."""

    def __init__(
        self,
        environment: TaskEnvironment,
        make_task: Callable[[SourceContext], SourceTask[Any]],
        spool: Spool,
        timing: Timing,
    ) -> None:
        self._environment = environment
        self._context = SpooledSourceContext(environment, spool.quarantine, spool.used_share)
        self._task = make_task(self._context)
        self._spool = spool
        self._timing = timing
        self._repeats = (
            Repeats(spool.sibling("seen"), environment.counters)
            if type(self._task).repeats_are_events
            else None
        )

    @property
    def stats(self) -> Counts:
        """Nothing: the ledger begins behind the spool."""
        return Counts()

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
        """Nothing: the spool keeps the totals."""
        return {}

    def run(self) -> None:
        """Run the task's whole life; return when asked to stop. Raises ``TaskFailedError``."""
        try:
            self._environment.retry(Stage.START, self._task.start)
            polling = self._environment.retry_state(Stage.TASK_POLL)
            while not self._environment.stop.is_set():
                try:
                    batch = self._task.poll(self._timing.max_records, self._timing.max_wait)
                except Exception as error:  # noqa: BLE001 - the failure table decides
                    if self._environment.clock.wait(self._environment.stop, polling.after(error)):
                        break
                    continue
                if batch:
                    polling.over()
                    self._append(batch)
                else:
                    polling.no_error()
                    self._spool.write_quarantine()
            self._receive_rest()
        except StopRequestedError:
            pass
        finally:
            try:
                self._task.stop()
            finally:
                if self._repeats is not None:
                    self._repeats.close()

    def interrupt(self) -> None:
        """Ask the task to stop. Called from another thread."""
        self._environment.stop.set()
        self._task.interrupt()

    def _append(self, batch: Sequence[SourceRecord]) -> None:
        if batch[0].source_offset and not self._context.offsets_reported:
            self._context.report_offsets("returns records with a source offset")
        self._spool.append(batch if self._repeats is None else self._repeats.number(batch))
        self._environment.activity.note_received(self._environment.clock)

    def _receive_rest(self) -> None:
        """Receive what the task still holds when it is asked to stop, as far as the time allows."""
        deadline = self._environment.clock.now() + self._timing.drain
        try:
            while batch := self._task.poll(self._timing.max_records, 0):
                self._append(batch)
                if self._environment.clock.now() >= deadline:
                    log.warning("stopped although the source still has records to give")
                    break
        except RetriableError:
            pass  # an unavailable source holds nothing
