"""One connector of a running worker: it starts, restarts and stops with its tasks."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tieline.api import Connector, StartupError
from tieline.config.plan import ConnectorPlan, SinkPlan
from tieline.logs import about, redaction
from tieline.runtime.errors.failure_table import restart_helps
from tieline.runtime.errors.traces import describe_error
from tieline.runtime.spool.spool import Spool
from tieline.runtime.task.clock import Clock
from tieline.runtime.worker.connector_ledger import ConnectorFailure, connector_ledger
from tieline.runtime.worker.connector_outages import ConnectorOutages
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
        self._factory = factory
        self._wake = wake
        self._clock = clock or Clock()
        self._tasks = TaskSet(plan, factory, self._clock, wake)
        self.outages = ConnectorOutages(plan.name, self._tasks, self._clock)
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
        """Return what is known about the connector's records. Any thread may call it."""
        trace = self._failure
        failure = None if trace is None else ConnectorFailure(trace, self._restarts.stats(None))
        return connector_ledger(self.type, self.state, self._tasks, self.outages.all(), failure)

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
