"""One connector of a running worker: its tasks' threads, and what is known about its records."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tieline.api import Connector, SinkConnector, SinkTask, SourceTask, StartupError, TielineError
from tieline.config.plan import ConnectorPlan
from tieline.logs import about
from tieline.runtime.source.pump import Pump
from tieline.runtime.source.receiver import Receiver
from tieline.runtime.spool.spool import Spool
from tieline.runtime.task.connections import Connections
from tieline.runtime.task.environment import TaskEnvironment
from tieline.runtime.task.ledger import Counts, skipped
from tieline.runtime.worker.factory import TaskFactory, sink_settings
from tieline.runtime.worker.thread import TaskThread

log = logging.getLogger(__name__)


class RunningConnector:
    """One connector with its tasks; is its own ``ConnectorContext``."""

    def __init__(self, plan: ConnectorPlan, parts: TaskFactory) -> None:
        self.plan = plan
        self.type = "sink" if issubclass(plan.connector, SinkConnector) else "source"
        self.threads: list[TaskThread] = []
        self.spools: list[Spool] = []
        self._parts = parts
        self._connector: Connector[Any] | None = None
        self._scopes: list[TaskEnvironment] = []
        self._failure: str | None = None
        self.of_topics = Connections(time.monotonic, wall_ms)
        """Topics of a sink that are not there."""
        self._counts: list[Callable[[], Counts]] = []
        self._lags: list[Callable[[], int | None]] = []

    # ConnectorContext

    @property
    def name(self) -> str:
        """The connector's name."""
        return self.plan.name

    @property
    def settings(self) -> Mapping[str, str]:
        """Its own settings, flat."""
        return self.plan.own

    def request_task_reconfiguration(self) -> None:
        """Noted only: tasks are configured once, at start, in this version."""
        log.warning("%s asks for new task configurations; they take effect at the next start", self.name)

    def raise_error(self, error: Exception) -> None:
        """Report an error from a thread of the connector's own: its tasks are stopped."""
        log.error("the connector %s failed: %s", self.name, error)
        self._failure = f"{type(error).__name__}: {error}"
        self.interrupt()

    # the runtime's side

    def prepare(self) -> None:
        """Make every task; if the connector fails at it, the others go on. Raises ``StartupError``."""
        try:
            self._make_tasks()
        except StartupError:
            raise
        except Exception as error:
            self._failure = f"START: {type(error).__name__}: {error}"
            self.threads.clear()
            log.exception("the connector %s failed at its start", self.name)

    def _make_tasks(self) -> None:
        connector = self._connector = self.plan.connector(self, self.plan.config)
        connector.start()
        configs = connector.task_configs(self.plan.settings.tasks_max)[: self.plan.settings.tasks_max]
        for number, own in enumerate(configs):
            environment = TaskEnvironment(self.name, number, self.plan.settings.policy)
            self._scopes.append(environment)
            task_type: Any = connector.task_type  # type: ignore[attr-defined]
            if issubclass(task_type, SinkTask):
                self._sink(task_type, own, environment)
            elif task_type.replayable:
                self._source(task_type, own, environment)
            else:
                self._spooled(task_type, own, environment)

    def adopt(self, paths: list[Path]) -> list[Path]:
        """Drain the spools that an earlier number of tasks left; those that are not ours are returned."""
        left = []
        open_now = {self._parts.spool_path(environment) for environment in self._scopes}
        for path in paths:
            if path in open_now and self.spools:
                continue
            name, _, number = path.stem.rpartition("-")
            if name != self.name or not number.isdecimal() or not self.spools:
                left.append(path)
                continue
            environment = TaskEnvironment(self.name, int(number), self.plan.settings.policy)
            self._scopes.append(environment)
            self._pump(self._parts.open_spool(path, self.plan, environment), environment)
        return left

    def start(self) -> None:
        """Start every thread."""
        for thread in self.threads:
            thread.start()

    def interrupt(self) -> None:
        """Ask every task to stop; returns at once. An error of one keeps no other from being asked."""
        for thread in self.threads:
            try:
                thread.interrupt()
            except Exception:
                log.exception("the task %s could not be asked to stop", thread.environment.id)

    def close(self) -> None:
        """After all threads have ended."""
        for spool in self.spools:
            spool.close()
        if self._connector is None:
            return
        try:
            self._connector.stop()
        except Exception:
            log.exception("the connector %s did not stop cleanly", self.name)

    @property
    def running(self) -> bool:
        """Some thread still works: a receiver goes on when its pump has failed."""
        return any(thread.state == "RUNNING" for thread in self.threads)

    @property
    def state(self) -> str:
        """The worst of the tasks' states."""
        states = {thread.state for thread in self.threads} | ({"FAILED"} if self._failure else set())
        return next((s for s in ("FAILED", "RUNNING", "UNASSIGNED") if s in states), "STOPPED")

    def ledger(self) -> dict[str, Any]:
        """What is known about the records: they add up at every moment for what is behind the spool."""
        counts = [count() for count in self._counts]
        totals = Counts(*(sum(column) for column in zip(*counts, strict=True))) if counts else Counts()
        counters: dict[str, int] = {}
        for environment in self._scopes:
            for name, number in environment.counters.all().items():
                counters[name] = counters.get(name, 0) + number
        out: dict[str, Any] = {
            "type": self.type,
            "state": self.state,
            **totals._asdict(),
            "skipped": skipped(counters),
            "counters": counters,
        }
        if self.type == "sink":
            lags = [lag() for lag in self._lags]
            out["lag"] = None if None in lags or not lags else sum(lag or 0 for lag in lags)
        if self.spools:
            try:
                waiting = [spool.waiting for spool in self.spools]
                out["spool_records"] = sum(records for records, _ in waiting)
                out["spool_bytes"] = sum(size for _, size in waiting)
            except TielineError as error:  # the disk is away: no reason to stop the worker
                out["spool_records"] = out["spool_bytes"] = None
                log.warning("what waits in the spool cannot be counted now: %s", error)
        if outages := self.outages():
            out["not_connected"] = outages
        traces = [trace for trace in (self._failure, *(t.trace for t in self.threads)) if trace]
        return {**out, "trace": traces[0]} if traces else out

    def outages(self) -> list[dict[str, Any]]:
        """What its tasks cannot reach now, each once: since the first of them could not."""
        found: dict[str, dict[str, Any]] = {}
        for connections in (self.of_topics, *(environment.connections for environment in self._scopes)):
            for outage in connections.all():
                earlier = found.setdefault(outage["to"], outage)
                earlier["since"] = min(earlier["since"], outage["since"])
        return list(found.values())

    def remind(self) -> None:
        """Log again what is still not connected."""
        with about(connector=self.name):
            self.of_topics.remind()
        for environment in self._scopes:
            with about(connector=environment.connector, task=environment.task):
                environment.connections.remind()

    def _sink(
        self, task_type: type[SinkTask[Any]], own: Mapping[str, str], environment: TaskEnvironment
    ) -> None:
        runner = self._parts.sink(self.plan, task_type, own, environment)
        subscription = sink_settings(self.plan).subscription
        self._counts.append(lambda: runner.counts)
        thread = TaskThread(environment, "sink", lambda: runner.run(subscription), runner.interrupt)
        self._lags.append(lambda: runner.lag if thread.state == "RUNNING" else None)  # it looks no more
        self.threads.append(thread)

    def _source(
        self, task_type: type[SourceTask[Any]], own: Mapping[str, str], environment: TaskEnvironment
    ) -> None:
        runner = self._parts.source(self.plan, task_type, own, environment)
        self._counts.append(lambda: runner.counts)
        self.threads.append(TaskThread(environment, "source", runner.run, runner.interrupt))

    def _spooled(
        self, task_type: type[SourceTask[Any]], own: Mapping[str, str], environment: TaskEnvironment
    ) -> None:
        spool = self._parts.open_spool(self._parts.spool_path(environment), self.plan, environment)
        config = type(self.plan.config).parse(own)
        receiver = Receiver(
            environment, lambda context: task_type(context, config), spool, self._parts.timing
        )
        self.threads.append(TaskThread(environment, "receiver", receiver.run, receiver.interrupt))
        self._pump(spool, environment)

    def _pump(self, spool: Spool, environment: TaskEnvironment) -> None:
        pump = Pump(
            environment,
            spool,
            lambda: self._parts.spool_sender(self.plan, environment, spool),
            self._parts.timing,
        )
        self.spools.append(spool)
        self._counts.append(lambda: pump.counts)
        self.threads.append(TaskThread(environment, "pump", pump.run, pump.interrupt))


def wall_ms() -> int:
    """Return the time of day, in ms since 1970, UTC."""
    return time.time_ns() // 1_000_000
