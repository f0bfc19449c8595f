"""The tasks of one connector: their threads, spools and totals, which outlive single tasks."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tieline.api import SinkTask, SourceTask
from tieline.config.plan import ConnectorPlan, SinkPlan, SourcePlan
from tieline.runtime.source.pump import SpoolInput
from tieline.runtime.spool.spool import Spool
from tieline.runtime.task.clock import Clock
from tieline.runtime.task.environment import TaskEnvironment
from tieline.runtime.task.ledger import Counts
from tieline.runtime.task.totals import PartitionView
from tieline.runtime.worker.factory import TaskFactory, TaskSettings
from tieline.runtime.worker.restart_state import RestartState
from tieline.runtime.worker.runner_protocol import Runner
from tieline.runtime.worker.task_thread import TaskThread

log = logging.getLogger(__name__)

_PUMP_ENDS_WITHIN = 30.0  # seconds, once it has nothing to send any more


class TaskSet:
    """Builds the tasks of a connector, all of them or one again. ``wake`` is called when a task ends.

    One thread calls the methods. Any thread may read.
    """

    def __init__(
        self, plan: ConnectorPlan, factory: TaskFactory, clock: Clock, wake: Callable[[], None]
    ) -> None:
        self.threads: Sequence[TaskThread] = ()
        self.spools: dict[Path, Spool] = {}
        """The open spools by path; they stay open while their tasks are rebuilt."""
        self._plan = plan
        self._factory = factory
        self._clock = clock
        self._wake = wake
        self._environments: dict[int, TaskEnvironment] = {}
        self._drained: set[Path] = set()
        """The spools that a pump of these tasks sends."""
        self._behind: dict[TaskThread, tuple[TaskThread, SpoolInput]] = {}
        """The pump behind each receiver, and what connects them."""
        self._earlier = Counts()

    @property
    def counts(self) -> Counts:
        """The totals of all tasks, also of those that were replaced."""
        total = self._earlier
        for thread in self.threads:
            total = total.plus(thread.stats)
        return total

    @property
    def totals(self) -> dict[Any, PartitionView]:
        """What the records of each partition became since the count began; see ``Runner.totals``.

        Several tasks may know a partition: of a sink if it moves between them, of a source always. The one
        that is further counts.
        """
        views: dict[Any, PartitionView] = {}
        for thread in self.threads:
            for partition, view in thread.totals.items():
                if partition not in views or views[partition].reached <= view.reached:
                    views[partition] = view
        return views

    @property
    def counters(self) -> dict[str, int]:
        """The totals of the tasks' counters."""
        totals: dict[str, int] = {}
        for environment in list(self._environments.values()):
            for name, number in environment.counters.all().items():
                totals[name] = totals.get(name, 0) + number
        return totals

    def build(self, task_type: Any, configs: Sequence[TaskSettings]) -> None:
        """Build a task for each configuration. Raises what building one raises; there is no task then."""
        plan = self._plan
        threads: list[TaskThread] = []
        for number, settings in enumerate(configs):
            environment = self._environment(number)
            if isinstance(plan, SinkPlan):
                threads.append(self._sink(plan, task_type, settings, environment))
            elif task_type.replayable:
                threads.append(self._source(plan, task_type, settings, environment))
            else:
                threads += self._spooled(plan, task_type, settings, environment)
        self.threads = tuple(threads)

    def adopt(self, paths: Sequence[Path]) -> list[Path]:
        """Drain the spools that tasks of an earlier start left; return those of other connectors."""
        plan = self._plan
        if not isinstance(plan, SourcePlan) or not self.spools:
            return list(paths)
        others = []
        for path in paths:
            name, _, number = path.stem.rpartition("-")
            if name != plan.name or not number.isdecimal():
                others.append(path)
            elif path not in self._drained:
                environment = self._environment(int(number))
                spool_input = SpoolInput()
                spool_input.end()
                pump = self._pump(plan, environment, self._open_spool(path, plan, environment), spool_input)
                self.threads = (*self.threads, pump)
        return others

    def clear(self) -> None:
        """Drop all tasks, which have ended; their spools stay open, and their totals are kept."""
        self._earlier = self.counts.settled
        self.threads = ()
        self._behind.clear()
        self._drained.clear()

    def rebuild(self, thread: TaskThread) -> None:
        """Build one task again that has ended or failed, and start it; the others continue.

        A pump that has ended because its receiver failed is rebuilt with the receiver. Raises what building
        the task raises.
        """
        thread.rebuild()
        if thread in self._behind:
            pump, spool_input = self._behind[thread]
            if spool_input.reopen():
                if not pump.join(_PUMP_ENDS_WITHIN):
                    raise RuntimeError(f"the pump of {pump.environment.id} does not end")
                pump.rebuild()
                pump.start()
        thread.start()

    def interrupt(self) -> None:
        """Ask every task to stop; return at once. An error of one does not affect the others."""
        for thread in self.threads:
            try:
                thread.interrupt()
            except Exception:
                log.exception("interrupt of the task %s failed", thread.environment.id)

    def _environment(self, number: int) -> TaskEnvironment:
        """Return a new environment for a task; its totals continue those of the task that it replaces."""
        before = self._environments.get(number)
        if before is None:
            before = TaskEnvironment(
                self._plan.name,
                number,
                self._plan.settings.policy,
                self._clock,
                data_dir=self._factory.data_dir,
            )
            self._environments[number] = before
            return before
        return before.renewed()

    def _thread(
        self, environment: TaskEnvironment, role: str, build: Callable[[TaskEnvironment], Runner]
    ) -> TaskThread:
        restarts = RestartState(self._plan.settings.restart_policy, self._clock)
        return TaskThread(environment, role, build, restarts, self._ended)

    def _ended(self, thread: TaskThread) -> None:
        """Called by the task's thread."""
        if thread in self._behind and thread.state == "FAILED" and thread.restarts.due is None:
            self._behind[thread][1].end()  # nothing comes any more
        self._wake()

    def _sink(
        self, plan: SinkPlan, task_type: type[SinkTask[Any]], settings: TaskSettings, task: TaskEnvironment
    ) -> TaskThread:
        return self._thread(
            task, "sink", lambda environment: self._factory.sink(plan, task_type, settings, environment)
        )

    def _source(
        self,
        plan: SourcePlan,
        task_type: type[SourceTask[Any]],
        settings: TaskSettings,
        task: TaskEnvironment,
    ) -> TaskThread:
        return self._thread(
            task, "source", lambda environment: self._factory.source(plan, task_type, settings, environment)
        )

    def _spooled(
        self,
        plan: SourcePlan,
        task_type: type[SourceTask[Any]],
        settings: TaskSettings,
        task: TaskEnvironment,
    ) -> tuple[TaskThread, TaskThread]:
        spool = self._open_spool(self._factory.spool_path(task), plan, task)
        spool_input = SpoolInput()
        receiver = self._thread(
            task,
            "receiver",
            lambda environment: self._factory.receiver(plan, task_type, settings, environment, spool),
        )
        pump = self._pump(plan, task.renewed(), spool, spool_input)
        self._behind[receiver] = pump, spool_input
        return receiver, pump

    def _pump(
        self, plan: SourcePlan, task: TaskEnvironment, spool: Spool, spool_input: SpoolInput
    ) -> TaskThread:
        return self._thread(
            task, "pump", lambda environment: self._factory.pump(plan, environment, spool, spool_input)
        )

    def _open_spool(self, path: Path, plan: SourcePlan, task: TaskEnvironment) -> Spool:
        if path not in self.spools:
            self.spools[path] = self._factory.open_spool(path, plan, task)
        self._drained.add(path)
        return self.spools[path]
