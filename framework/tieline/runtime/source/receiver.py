"""A source that cannot be asked again: a receiver that only receives, a pump that does the rest."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

from tieline.api import RetriableError, SourceContext, SourceRecord, SourceTask
from tieline.config.settings import Timing
from tieline.runtime.errors.retry import StopRequested
from tieline.runtime.errors.table import Stage
from tieline.runtime.source.repeats import Repeats
from tieline.runtime.spool.spool import Spool
from tieline.runtime.task.context import TaskSourceContext
from tieline.runtime.task.environment import TaskEnvironment

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
        self._task = make_task(TaskSourceContext(environment, dict, spool.quarantine))
        self._spool = spool
        self._timing = timing
        self._repeats = (
            Repeats(spool.beside("seen"), environment.counters)
            if type(self._task).repeats_are_events
            else None
        )

    def run(self) -> None:
        """The whole life of the task. Raises ``TaskFailed``; returns when asked to stop."""
        try:
            self._environment.retry(Stage.START, self._task.start)
            away = self._environment.retry_state(Stage.TASK_POLL)
            while not self._environment.stop.is_set():
                try:
                    batch = self._task.poll(self._timing.max_records, self._timing.max_wait)
                except Exception as error:
                    if self._environment.clock.wait(self._environment.stop, away.after(error)):
                        break
                    continue
                away.over()
                if batch:
                    self._keep(batch)
                else:
                    self._spool.write_quarantine()
            self._last()
        except StopRequested:
            pass
        finally:
            try:
                self._task.stop()
            finally:
                if self._repeats is not None:
                    self._repeats.close()

    def interrupt(self) -> None:
        """From another thread: ask the task to stop."""
        self._environment.stop.set()
        self._task.interrupt()

    def _keep(self, batch: Sequence[SourceRecord]) -> None:
        self._spool.append(batch if self._repeats is None else self._repeats.number(batch))

    def _last(self) -> None:
        """What the task still held when it was asked to stop, as far as the time allows."""
        deadline = self._environment.clock.now() + self._timing.drain
        try:
            while batch := self._task.poll(self._timing.max_records, 0):
                self._keep(batch)
                if self._environment.clock.now() >= deadline:
                    log.warning("stopped although the source still has records to give")
                    break
        except RetriableError:
            pass  # it is away: it holds nothing
