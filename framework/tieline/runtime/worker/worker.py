"""A worker: starts the tasks of its connectors, watches them, and stops them in time."""

from __future__ import annotations

import enum
import logging
import os
import queue
import time
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from tieline.broker.port import Broker
from tieline.config.plan import Plan, SinkPlan
from tieline.logs import repeats
from tieline.metrics.textfile import MetricsTextfile
from tieline.registry.http.server import RegistryServer
from tieline.runtime.errors.traces import split_trace
from tieline.runtime.task.clock import Clock
from tieline.runtime.task.connections import Connections
from tieline.runtime.worker.broker_watch import BrokerWatch
from tieline.runtime.worker.connector import RunningConnector
from tieline.runtime.worker.factory import TaskFactory
from tieline.runtime.worker.snapshot import WorkerClock, take_snapshot
from tieline.runtime.worker.status_file import StatusFile

if TYPE_CHECKING:
    from tieline.metrics.exposition import WorkerMetrics

log = logging.getLogger(__name__)


class _Event(enum.Enum):
    STOP = enum.auto()
    TASKS = enum.auto()


class Worker:
    """Runs a plan until it is asked to stop."""

    def __init__(self, plan: Plan, broker: Broker) -> None:
        self._plan = plan
        self._broker = broker
        self._clock = Clock()
        self._events: queue.SimpleQueue[_Event] = queue.SimpleQueue()
        """What the loop reacts to at once.

        A signal handler may interrupt any line, including its own: a ``SimpleQueue`` allows that, while an
        ``Event`` may wait for its own lock for ever.
        """
        self._factory = TaskFactory(broker, plan.worker.timing, plan.worker.data_dir)
        self.connectors = [
            RunningConnector(planned, self._factory, self._wake, self._clock) for planned in plan.connectors
        ]
        schemas = self._factory.schema_topic
        self._registry = RegistryServer(schemas, plan.registry) if plan.registry else None
        self._broker_connections = Connections(self._clock.now, self._clock.wall_ms)
        self._interval = plan.worker.progress_interval_ms / 1000
        sinks = {
            c.name: (c.plan.settings.subscription, c.outages.topics)
            for c in self.connectors
            if isinstance(c.plan, SinkPlan)
        }
        self._watch = BrokerWatch(
            broker, self.broker_name, self._broker_connections, sinks, max(1.0, self._interval)
        )
        self._started_at = self._clock.wall_ms()
        self._age = WorkerClock()

    @cached_property
    def metrics(self) -> WorkerMetrics:
        """The worker's metrics. A worker that exports none does not load the library."""
        from tieline.metrics.exposition import WorkerMetrics

        return WorkerMetrics(lambda: take_snapshot(self, self.ledger(), self._age))

    def interrupt(self) -> None:
        """Ask the worker to stop. Called from another thread or a signal handler."""
        self._events.put(_Event.STOP)

    def _wake(self) -> None:
        """Called from any thread when a task has ended, or is to be restarted."""
        self._events.put(_Event.TASKS)

    def ledger(self) -> dict[str, Any]:
        """Return each connector's ledger by its name; an outage of the broker concerns all of them."""
        ledgers = {connector.name: connector.ledger() for connector in self.connectors}
        for outage in self._broker_connections.all():
            for ledger in ledgers.values():
                ledger.setdefault("not_connected", []).append(outage)
        return ledgers

    def run(self) -> bool:
        """Start, watch, and stop in time. Return false if tasks failed or were abandoned."""
        self._prepare()
        if self._registry is not None:
            self._registry.start(wait=0.0)  # reception does not wait for an unavailable broker
        for connector in self.connectors:
            connector.start()
        log.info(
            "started", extra={"connectors": [c.name for c in self.connectors], "broker": self.broker_name}
        )
        status = StatusFile(self._plan.worker.data_dir)
        status.write(self._status(self.ledger()))
        textfile = self._open_textfile()
        if textfile is not None:
            textfile.write()
        self._watch.start()
        next_progress = self._clock.now() + self._interval
        while not self._wait_for_stop(next_progress):
            for connector in self.connectors:
                connector.restart_due()
            ledger = self.ledger()
            status.write(self._status(ledger))
            if self._clock.now() < next_progress:
                continue
            next_progress = self._clock.now() + self._interval
            log.info("progress", extra={"ledger": _for_the_log(ledger)})
            if textfile is not None:
                textfile.write()
            self._remind()
            if not any(connector.can_run for connector in self.connectors):
                log.error("no task is running any more, and none will be restarted, stopping")
                break
        clean, ledger = self._shut_down()
        status.write(self._status(ledger))
        status.close()
        if textfile is not None:
            textfile.remove()
        return clean

    def _open_textfile(self) -> MetricsTextfile | None:
        path = self._plan.worker.metrics_textfile
        return None if path is None else MetricsTextfile(path, lambda: self.metrics.render().text)

    def _status(self, ledger: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "pid": os.getpid(),
            "started": self._started_at,
            "written": self._clock.wall_ms(),
            "broker": self.broker_name,
            "connectors": ledger,
        }

    def _remind(self) -> None:
        repeats.flush()
        self._broker_connections.remind()
        for connector in self.connectors:
            connector.outages.remind()

    def _wait_for_stop(self, until: float) -> bool:
        """Wait until this time of the clock, a restart or the end of a task; return whether to stop."""
        dues = (connector.next_due for connector in self.connectors)
        seconds = min([until, *(due for due in dues if due is not None)]) - self._clock.now()
        try:
            event = self._events.get(timeout=max(0.0, seconds))
            while event is _Event.TASKS:  # several tasks that ended at once are one reason to look
                event = self._events.get_nowait()
        except queue.Empty:
            return False
        return True

    def _prepare(self) -> None:
        for key, why in self._plan.ignored.items():
            log.warning("the setting %s has no effect here: %s", key, why)
        self._broker.protect(
            {
                f"connect-{planned.name}": planned.settings.reads
                for planned in self._plan.connectors
                if isinstance(planned, SinkPlan)
            }
        )
        left = self._factory.existing_spools()
        for connector in self.connectors:
            connector.prepare()
        for connector in self.connectors:
            left = connector.adopt(left)
        for path in left:
            log.error(
                "this disk holds the spool of a connector that is not configured: its records wait",
                extra={"spool": path.name, "fix": "start its connector again, or delete the file"},
            )

    def _shut_down(self) -> tuple[bool, dict[str, Any]]:
        """Return whether all tasks ended well, and the last ledger, taken before its parts are closed."""
        deadline = time.monotonic() + self._plan.worker.task_shutdown_graceful_timeout_ms / 1000
        log.info("stopping")
        for connector in self.connectors:
            connector.interrupt()
        abandoned = [
            name for connector in self.connectors for name in connector.join(deadline - time.monotonic())
        ]
        for name in abandoned:
            log.error("the task %s did not stop in time (task.shutdown.graceful.timeout.ms)", name)
        ledger = self.ledger()
        self._watch.stop(max(0.5, deadline - time.monotonic()))
        if self._registry is not None:
            self._registry.stop()
        if not abandoned:
            for connector in self.connectors:
                connector.close()
            self._factory.close()
            self._broker.close()
        log.info("stopped", extra={"ledger": _for_the_log(ledger)})
        return not abandoned and all(c.state == "STOPPED" for c in self.connectors), ledger

    @property
    def broker_recovered_ms(self) -> int | None:
        """When the last outage of the broker ended, in ms since 1970; ``None`` before the first."""
        return self._broker_connections.recovered_ms

    @property
    def broker_name(self) -> str:
        """What outages of the broker are reported under."""
        servers = self._plan.worker.bootstrap_servers
        return f"Kafka at {','.join(servers)}" if servers else f"local log in {self._plan.worker.data_dir}"


def _for_the_log(ledgers: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return ledgers without single tasks and tracebacks, which the log has where a task failed."""
    out = {name: dict(ledger) for name, ledger in ledgers.items()}
    for ledger in out.values():
        del ledger["tasks"]
        if "trace" in ledger:
            ledger["trace"] = split_trace(ledger["trace"])[0]
    return out
