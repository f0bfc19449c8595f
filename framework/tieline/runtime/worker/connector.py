"""One connector of a running worker: its tasks, their restarts, and what is known about its records."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tieline.api import Connector, StartupError, TielineError
from tieline.config.plan import ConnectorPlan, SinkPlan
from tieline.logs import about, redaction
from tieline.runtime.errors.failure_table import restart_helps
from tieline.runtime.errors.traces import describe_error
from tieline.runtime.spool.spool import Spool
from tieline.runtime.task.clock import Clock
from tieline.runtime.task.connections import Connections
from tieline.runtime.task.ledger import skipped
from tieline.runtime.task.totals import add_up, describe, summarize
from tieline.runtime.worker.factory import TaskFactory
from tieline.runtime.worker.restart_state import RestartState
from tieline.runtime.worker.states import State, worst
from tieline.runtime.worker.task_set import TaskSet
from tieline.runtime.worker.task_thread import TaskThread

log = logging.getLogger(__name__)

_ENDING = 5.0
"""Seconds that a thread may take to end after its task has."""


class RunningConnector:
    """One connector with its tasks. It is a ``ConnectorContext``.

    ``wake`` is called from any thread when ``restart_due`` may have something to do. One thread calls the
    methods of the runtime's side, except those that say otherwise.
    """

    def __init__(
        self,
        plan: ConnectorPlan,
        factory: TaskFactory,
        wake: Callable[[], None] = lambda: None,
        clock: Clock | None = None,
    ) -> None:
        self.plan = plan
        self.type = "sink" if isinstance(plan, SinkPlan) else "source"
        self.topic_connections = Connections(time.monotonic, wall_ms)
        """The topics of a sink that do not exist."""
        self._factory = factory
        self._wake = wake
        self._clock = clock or Clock()
        self._tasks = TaskSet(plan, factory, self._clock, wake)
        self._connector: Connector[Any] | None = None
        self._failure: str | None = None
        """Why the connector failed as a whole: its tasks stop, and all of it is restarted."""
        self._restarts = RestartState(plan.settings.restart_policy, self._clock)
        self._restart_requested = False
        self._stopping = False
        self._starting = threading.Lock()
        """Held while tasks are started and while they are stopped for good: none is started after that."""
        self._restart_thread: threading.Thread | None = None
        """Restarts the connector as a whole: its own code may block, and must not delay the worker."""
        self.is_restarting = False
        """Whether that thread works."""

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
        """Report an error from a thread of the connector's own. Its tasks stop, and all of it restarts."""
        if self._failure is None:
            self._fail(f"{type(error).__name__}: {error}", error)
            self._tasks.interrupt()
            self._wake()
        else:
            log.error("the connector %s has failed already, and reports: %s", self.name, error)

    # the runtime's side

    @property
    def threads(self) -> Sequence[TaskThread]:
        """The threads of its tasks; those of a connector that restarts are replaced."""
        return self._tasks.threads

    @property
    def spools(self) -> Mapping[Path, Spool]:
        """The open spools by path."""
        return self._tasks.spools

    def prepare(self) -> None:
        """Build every task. If the connector fails, it is restarted later. Raises ``StartupError``."""
        try:
            self._build_tasks()
        except StartupError:
            raise
        except Exception as error:  # noqa: BLE001 - the policy decides
            self._fail(f"START: {type(error).__name__}: {error}", error)

    def adopt(self, paths: Sequence[Path]) -> list[Path]:
        """Drain the spools that tasks of an earlier start left; return those of other connectors."""
        return self._tasks.adopt(paths)

    def start(self) -> None:
        """Start every task, unless the connector has failed as a whole."""
        with self._starting:
            if self._failure is not None or self._stopping:
                return
            self._restarts.begin()
            for thread in self.threads:
                thread.start()

    def rebuild(self, thread: TaskThread) -> None:
        """Build one task again that has ended or failed, and start it; the others continue.

        A pump that has ended because its receiver failed is rebuilt with the receiver. Raises what building
        the task raises.
        """
        self._tasks.rebuild(thread)

    def restart(self) -> None:
        """Ask for a restart of everything that has failed, at once, and close its breaker. Any thread."""
        self._restart_requested = True
        self._wake()

    @property
    def next_due(self) -> float | None:
        """When ``restart_due`` has something to do, on the clock; ``None``: not before ``wake`` is called."""
        if self.is_restarting:
            return None  # its end wakes the worker
        if self._failure is not None and not all(thread.has_ended for thread in self.threads):
            return None  # the end of the last task wakes the worker
        if self._restart_requested:
            return self._clock.now()
        if self._failure is not None:
            return self._restarts.due
        return min(self._dues(), default=None)

    def restart_due(self) -> None:
        """Restart the tasks whose time has come, or the connector as a whole if that has failed."""
        if self._stopping or self.is_restarting:
            return
        requested, self._restart_requested = self._restart_requested, False
        now = self._clock.now()
        if self._failure is not None:
            due = self._restarts.due
            if requested or (due is not None and due <= now):
                self._begin_to_restart_all(requested)
            return
        for thread in self.threads:
            due = thread.restarts.due
            if (due is not None and due <= now) or (requested and thread.state in ("FAILED", "RESTARTING")):
                self._restart(thread, requested)

    def interrupt(self) -> None:
        """Stop for good: ask every task to stop, return at once, and restart nothing any more."""
        with self._starting:
            self._stopping = True
        self._tasks.interrupt()

    def join(self, timeout: float) -> list[str]:
        """Wait for the end of all tasks and of a restart; return the names of those that do not end."""
        deadline = time.monotonic() + timeout
        alive = []
        restart = self._restart_thread
        if restart is not None:
            restart.join(max(0.0, deadline - time.monotonic()))
            if restart.is_alive():
                alive.append(f"{self.name} (its start)")
        return alive + [
            thread.environment.id for thread in self.threads if not thread.join(deadline - time.monotonic())
        ]

    def close(self) -> None:
        """Close the spools and stop the connector, after all tasks have ended."""
        for spool in self.spools.values():
            spool.close()
        self._stop_connector()

    @property
    def running(self) -> bool:
        """Whether some task works, such as a receiver whose pump has failed."""
        return any(thread.state == "RUNNING" for thread in self.threads)

    @property
    def can_run(self) -> bool:
        """Whether some task works, or will without an operator's help."""
        will_restart = self._restarts.due if self._failure is not None else next(self._dues(), None)
        return self.running or self.is_restarting or will_restart is not None

    @property
    def state(self) -> State:
        """The worst of the tasks' states, and of the connector's own."""
        states: list[State] = [thread.state for thread in self.threads]
        if self._failure is not None:
            states.append(self._restarts.state or "RESTARTING")
        elif self.is_restarting:
            states.append("RESTARTING")
        return worst(states)

    def ledger(self) -> dict[str, Any]:
        """Return what is known about the records; from the spool on, the numbers add up at any moment."""
        counters = self._tasks.counters
        out: dict[str, Any] = {
            "type": self.type,
            "state": self.state,
            **self._tasks.counts._asdict(),
            "skipped": skipped(counters),
            "counters": counters,
        }
        if self.type == "sink":
            lags = [thread.lag for thread in self.threads]
            out["lag"] = None if None in lags or not lags else sum(lag or 0 for lag in lags)
            seconds = [thread.lag_seconds for thread in self.threads]
            known = [each for each in seconds if each is not None]
            out["lag_seconds"] = max(known) if known and len(known) == len(seconds) else None
            out["topics"] = summarize(self._tasks.totals)
            out["totals"] = add_up(out["topics"].values())
        if self.spools:
            out.update(self._describe_spools())
        if out.get("totals") is not None:
            out["mismatch"] = out["totals"]["mismatch"]
        if outages := self.outages():
            out["not_connected"] = outages
        out["tasks"] = tasks = [thread.describe() for thread in self.threads]
        own = self._restarts.stats(None)
        out.update(_summary([own, *tasks] if self._failure is not None else tasks))
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

    def _describe_spools(self) -> dict[str, Any]:
        """Return what is in the spools and became of the rest, ``None`` if that cannot be read now."""
        try:
            views = [spool.view for spool in self.spools.values()]
        except TielineError as error:  # the disk is unavailable: no reason to stop the worker
            log.warning("the records in the spool cannot be counted now: %s", error)
            return dict.fromkeys(("spool_records", "spool_bytes", "spool_age_seconds", "totals"))
        return {
            "spool_records": sum(view.records for view in views),
            "spool_bytes": sum(view.bytes for view in views),
            "spool_age_seconds": max((view.age for view in views), default=0.0),
            "totals": add_up(describe(view.totals) for view in views),
        }

    def _dues(self) -> Iterator[float]:
        """Yield when tasks are restarted."""
        return (due for due in (thread.restarts.due for thread in self.threads) if due is not None)

    def _build_tasks(self) -> None:
        plan = self.plan
        connector = self._connector = plan.connector(self, plan.config)
        connector.start()
        task_type: Any = plan.connector.task_type
        configs = connector.task_configs(plan.settings.tasks_max)[: plan.settings.tasks_max]
        self._tasks.build(task_type, configs)

    def _fail(self, sentence: str, error: Exception) -> None:
        """Note that the connector has failed as a whole, and decide about its restart."""
        handled = [thread.environment.activity.delivered for thread in self.threads]
        last_record = max((time for time in handled if time is not None), default=None)
        state = self._restarts.fail(restart_helps(error) and not self._stopping, last_record)
        self._failure = redaction.clean(describe_error(sentence, error))
        extra = {"state": state, **self._restarts.stats(None)}
        log.error("the connector %s failed: %s", self.name, sentence, exc_info=error, extra=extra)

    def _restart(self, thread: TaskThread, requested: bool) -> None:
        """Restart one task; the others continue."""
        thread.join(_ENDING)
        if requested:
            thread.restarts.close_breaker()
        thread.restarts.restart()
        environment = thread.environment
        environment.counters.add("restarts")
        with about(connector=self.name, task=environment.task):
            log.info("the task is restarted", extra={"role": thread.role, **thread.restarts.stats(None)})
            try:
                self._tasks.rebuild(thread)
            except Exception as error:  # noqa: BLE001 - the policy decides
                thread.fail(error)

    def _begin_to_restart_all(self, requested: bool) -> None:
        """Restart the connector as a whole in a thread, if all of its tasks have ended."""
        if not all(thread.has_ended and thread.join(_ENDING) for thread in self.threads):
            self._restart_requested = requested
            return

        def run() -> None:
            with about(connector=self.name):
                self._restart_all(requested)
            self.is_restarting = False
            self._wake()

        self.is_restarting = True
        self._restart_thread = threading.Thread(target=run, name=f"{self.name} restart", daemon=True)
        self._restart_thread.start()

    def _restart_all(self, requested: bool) -> None:
        self._stop_connector()
        self._tasks.clear()
        if requested:
            self._restarts.close_breaker()
        self._restarts.restart()
        log.info("the connector %s is restarted", self.name, extra=self._restarts.stats(None))
        self._failure = None  # from here on, the new connector may report an error of its own
        try:
            self._build_tasks()
            self._tasks.adopt(self._factory.existing_spools())
            self.start()
        except Exception as error:  # noqa: BLE001 - the policy decides
            self._fail(f"START: {type(error).__name__}: {error}", error)
            self._tasks.interrupt()

    def _stop_connector(self) -> None:
        if self._connector is None:
            return
        try:
            self._connector.stop()
        except Exception:
            log.exception("the connector %s did not stop cleanly", self.name)
        self._connector = None


def _summary(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the most attempts of the tasks, their earliest next one, and whether a breaker is open."""
    out: dict[str, Any] = {"attempts": max((part["attempts"] for part in parts), default=0)}
    failed = [part for part in parts if "breaker" in part]
    if failed:
        times = [part["next_attempt_ms"] for part in failed if part["next_attempt_ms"] is not None]
        out["next_attempt_ms"] = min(times, default=None)
        out["breaker"] = "open" if any(part["breaker"] == "open" for part in failed) else "closed"
    for name, first in (("last_received_ms", max), ("last_delivered_ms", max), ("waiting_since_ms", min)):
        times = [part[name] for part in parts if part.get(name) is not None]
        out[name] = first(times) if times else None
    return out


def wall_ms() -> int:
    """Return the time of day, in ms since 1970, UTC."""
    return time.time_ns() // 1_000_000
