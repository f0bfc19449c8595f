"""One connector of a running worker: its tasks, and what is known about its records."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from tieline.api import Connector, SinkTask, SourceTask, StartupError, TielineError
from tieline.config.plan import ConnectorPlan, SinkPlan, SourcePlan
from tieline.logs import about, redaction
from tieline.runtime.errors.traces import describe_error
from tieline.runtime.source.pump import SpoolInput
from tieline.runtime.spool.spool import Spool
from tieline.runtime.task.clock import Counters
from tieline.runtime.task.connections import Connections
from tieline.runtime.task.environment import TaskEnvironment
from tieline.runtime.task.ledger import Counts, skipped
from tieline.runtime.worker.factory import TaskFactory, TaskSettings
from tieline.runtime.worker.task_thread import TaskThread

log = logging.getLogger(__name__)

_PUMP_ENDS_WITHIN = 30.0  # seconds, once it has nothing to send any more


class RunningConnector:
    """One connector with its tasks. It is a ``ConnectorContext``."""

    def __init__(self, plan: ConnectorPlan, factory: TaskFactory) -> None:
        self.plan = plan
        self.type = "sink" if isinstance(plan, SinkPlan) else "source"
        self.threads: list[TaskThread] = []
        self.spools: dict[Path, Spool] = {}
        """The open spools by path; they stay open while their tasks are rebuilt."""
        self.topic_connections = Connections(time.monotonic, wall_ms)
        """The topics of a sink that do not exist."""
        self._factory = factory
        self._connector: Connector[Any] | None = None
        self._counters: list[Counters] = []
        self._behind: dict[TaskThread, tuple[TaskThread, SpoolInput]] = {}
        """The pump behind each receiver, and what connects them."""
        self._failure: str | None = None

    # ConnectorContext

    @property
    def name(self) -> str:
        """The connector's name."""
        return self.plan.name

    @property
    def settings(self) -> Mapping[str, str]:
        """The connector's own settings as a flat map."""
        return self.plan.connector_settings

    def request_task_reconfiguration(self) -> None:
        """Log the request: in this version tasks are configured only at the start."""
        log.warning("%s asks for new task configurations; they take effect at the next start", self.name)

    def raise_error(self, error: Exception) -> None:
        """Report an error from a thread of the connector's own, and stop its tasks."""
        sentence = f"{type(error).__name__}: {error}"
        log.error("the connector %s failed: %s", self.name, sentence, exc_info=error)
        self._failure = redaction.clean(describe_error(sentence, error))
        self.interrupt()

    # the runtime's side

    def prepare(self) -> None:
        """Build every task. If the connector fails, it is FAILED. Raises ``StartupError``."""
        try:
            self._build_tasks()
        except StartupError:
            raise
        except Exception as error:
            sentence = f"START: {type(error).__name__}: {error}"
            self._failure = redaction.clean(describe_error(sentence, error))
            self.threads.clear()
            log.exception("the connector %s failed at its start", self.name)

    def adopt(self, paths: list[Path]) -> list[Path]:
        """Drain the spools that tasks of an earlier start left; return those of other connectors."""
        plan = self.plan
        if not isinstance(plan, SourcePlan) or not self.spools:
            return paths
        others = []
        for path in paths:
            name, _, number = path.stem.rpartition("-")
            if name != self.name or not number.isdecimal():
                others.append(path)
            elif path not in self.spools:
                environment = self._make_environment(int(number))
                spool_input = SpoolInput()
                spool_input.end()
                self._add_pump(plan, environment, self._open_spool(path, plan, environment), spool_input)
        return others

    def start(self) -> None:
        """Start every task."""
        for thread in self.threads:
            thread.start()

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

    def close(self) -> None:
        """Close the spools and stop the connector, after all tasks have ended."""
        for spool in self.spools.values():
            spool.close()
        if self._connector is None:
            return
        try:
            self._connector.stop()
        except Exception:
            log.exception("the connector %s did not stop cleanly", self.name)

    @property
    def running(self) -> bool:
        """Whether some task works, such as a receiver whose pump has failed."""
        return any(thread.state == "RUNNING" for thread in self.threads)

    @property
    def state(self) -> str:
        """The worst of the tasks' states."""
        return worst_state(
            {thread.state for thread in self.threads} | ({"FAILED"} if self._failure else set())
        )

    def ledger(self) -> dict[str, Any]:
        """Return what is known about the records; from the spool on, the numbers add up at any moment."""
        stats = [thread.stats for thread in self.threads]
        totals = Counts(*(sum(column) for column in zip(*stats, strict=True))) if stats else Counts()
        counters: dict[str, int] = {}
        for task_counters in self._counters:
            for name, number in task_counters.all().items():
                counters[name] = counters.get(name, 0) + number
        out: dict[str, Any] = {
            "type": self.type,
            "state": self.state,
            **totals._asdict(),
            "skipped": skipped(counters),
            "counters": counters,
        }
        if self.type == "sink":
            lags = [thread.lag for thread in self.threads]
            out["lag"] = None if None in lags or not lags else sum(lag or 0 for lag in lags)
        if self.spools:
            out["spool_records"], out["spool_bytes"] = self._waiting()
        if outages := self.outages():
            out["not_connected"] = outages
        traces = [trace for trace in (self._failure, *(thread.trace for thread in self.threads)) if trace]
        return {**out, "trace": traces[0]} if traces else out

    def outages(self) -> list[dict[str, Any]]:
        """Return what its tasks cannot reach now, each once, with the earliest time."""
        outages: dict[str, dict[str, Any]] = {}
        for connections in (
            self.topic_connections,
            *(thread.environment.connections for thread in self.threads),
        ):
            for outage in connections.all():
                earlier = outages.setdefault(outage["to"], outage)
                earlier["since"] = min(earlier["since"], outage["since"])
        return list(outages.values())

    def recovered_ms(self) -> list[int | None]:
        """Return when the last outage of each task ended, in ms since 1970; ``None`` before the first."""
        return [
            self.topic_connections.recovered_ms,
            *(thread.environment.connections.recovered_ms for thread in self.threads),
        ]

    def remind(self) -> None:
        """Log outages again that continue."""
        with about(connector=self.name):
            self.topic_connections.remind()
        for thread in self.threads:
            with about(connector=self.name, task=thread.environment.task):
                thread.environment.connections.remind()

    def _waiting(self) -> tuple[int | None, int | None]:
        """Return the records and bytes in the spools, ``None`` if they cannot be counted now."""
        try:
            sizes = [spool.waiting for spool in self.spools.values()]
        except TielineError as error:  # the disk is unavailable: no reason to stop the worker
            log.warning("the records in the spool cannot be counted now: %s", error)
            return None, None
        return sum(records for records, _ in sizes), sum(size for _, size in sizes)

    def _build_tasks(self) -> None:
        plan = self.plan
        connector = self._connector = plan.connector(self, plan.config)
        connector.start()
        task_type: Any = plan.connector.task_type
        configs = connector.task_configs(plan.settings.tasks_max)[: plan.settings.tasks_max]
        for number, settings in enumerate(configs):
            environment = self._make_environment(number)
            if isinstance(plan, SinkPlan):
                self._add_sink(plan, task_type, settings, environment)
            elif task_type.replayable:
                self._add_source(plan, task_type, settings, environment)
            else:
                self._add_spooled(plan, task_type, settings, environment)

    def _make_environment(self, number: int) -> TaskEnvironment:
        environment = TaskEnvironment(
            self.name, number, self.plan.settings.policy, data_dir=self._factory.data_dir
        )
        self._counters.append(environment.counters)
        return environment

    def _add_sink(
        self, plan: SinkPlan, task_type: type[SinkTask[Any]], settings: TaskSettings, task: TaskEnvironment
    ) -> None:
        self.threads.append(
            TaskThread(
                task, "sink", lambda environment: self._factory.sink(plan, task_type, settings, environment)
            )
        )

    def _add_source(
        self,
        plan: SourcePlan,
        task_type: type[SourceTask[Any]],
        settings: TaskSettings,
        task: TaskEnvironment,
    ) -> None:
        self.threads.append(
            TaskThread(
                task,
                "source",
                lambda environment: self._factory.source(plan, task_type, settings, environment),
            )
        )

    def _add_spooled(
        self,
        plan: SourcePlan,
        task_type: type[SourceTask[Any]],
        settings: TaskSettings,
        task: TaskEnvironment,
    ) -> None:
        spool = self._open_spool(self._factory.spool_path(task), plan, task)
        spool_input = SpoolInput()
        receiver = TaskThread(
            task,
            "receiver",
            lambda environment: self._factory.receiver(plan, task_type, settings, environment, spool),
            on_failure=spool_input.end,
        )
        self.threads.append(receiver)
        self._behind[receiver] = self._add_pump(plan, task.renewed(), spool, spool_input), spool_input

    def _add_pump(
        self, plan: SourcePlan, task: TaskEnvironment, spool: Spool, spool_input: SpoolInput
    ) -> TaskThread:
        pump = TaskThread(
            task, "pump", lambda environment: self._factory.pump(plan, environment, spool, spool_input)
        )
        self.threads.append(pump)
        return pump

    def _open_spool(self, path: Path, plan: SourcePlan, task: TaskEnvironment) -> Spool:
        spool = self.spools[path] = self._factory.open_spool(path, plan, task)
        return spool


def worst_state(states: Collection[str]) -> str:
    """Return the state of these that needs attention most."""
    return next((state for state in ("FAILED", "RUNNING", "UNASSIGNED") if state in states), "STOPPED")


def wall_ms() -> int:
    """Return the time of day, in ms since 1970, UTC."""
    return time.time_ns() // 1_000_000
