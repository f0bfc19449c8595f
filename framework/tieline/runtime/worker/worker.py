"""A worker: starts the tasks of its connectors, watches them, stops them in time."""

from __future__ import annotations

import logging
import os
import queue
import time
from collections.abc import Mapping
from typing import Any

from tieline.broker.port import Broker
from tieline.config.plan import Plan
from tieline.config.settings import SinkSettings
from tieline.logs import repeats
from tieline.registry.http.server import RegistryServer
from tieline.runtime.task.connections import Connections
from tieline.runtime.worker.broker_watch import BrokerWatch
from tieline.runtime.worker.connector import RunningConnector, wall_ms
from tieline.runtime.worker.factory import TaskFactory, sink_settings
from tieline.runtime.worker.status_file import StatusFile

log = logging.getLogger(__name__)


class Worker:
    """Runs a plan until it is asked to stop."""

    def __init__(self, plan: Plan, broker: Broker) -> None:
        self._plan = plan
        self._broker = broker
        self._asked: queue.SimpleQueue[None] = queue.SimpleQueue()
        parts = TaskFactory(broker, plan.worker.timing, plan.worker.data_dir / "spools")
        self._parts = parts
        self.connectors = [RunningConnector(planned, parts) for planned in plan.connectors]
        self._registry = RegistryServer(parts.schema_topic, plan.registry) if plan.registry else None
        self._of_broker = Connections(time.monotonic, wall_ms)
        self._interval = plan.worker.progress_interval_ms / 1000
        sinks = {
            c.name: (c.plan.settings.subscription, c.of_topics)
            for c in self.connectors
            if isinstance(c.plan.settings, SinkSettings)
        }
        self._watch = BrokerWatch(broker, self._home, self._of_broker, sinks, max(1.0, self._interval))
        self._started_at = wall_ms()

    def interrupt(self) -> None:
        """From another thread, or a signal handler, which may interrupt any line, itself included: a
        ``SimpleQueue`` takes that, an ``Event`` may wait for its own lock for ever.
        """
        self._asked.put(None)

    def ledger(self) -> dict[str, Any]:
        """Each connector's ledger by its name; a broker that is away is so for all of them."""
        found = {connector.name: connector.ledger() for connector in self.connectors}
        for outage in self._of_broker.all():
            for ledger in found.values():
                ledger.setdefault("not_connected", []).append(outage)
        return found

    def run(self) -> bool:
        """Start, watch, stop in time. True for a clean end; false if tasks failed or were cut off."""
        self._prepare()
        if self._registry is not None:
            self._registry.start(wait=0.0)  # a broker that is away keeps nobody from receiving
        for connector in self.connectors:
            connector.start()
        log.info("started", extra={"connectors": [c.name for c in self.connectors], "broker": self._home})
        status = StatusFile(self._plan.worker.data_dir)
        status.write(self._status(self.ledger()))
        self._watch.start()
        while not self._asked_to_stop(self._interval):
            ledger = self.ledger()
            log.info("progress", extra={"ledger": ledger})
            status.write(self._status(ledger))
            self._remind()
            if not any(connector.running for connector in self.connectors):
                log.error("no task is running any more, stopping")
                break
        clean, ledger = self._shut_down()
        status.write(self._status(ledger))
        status.close()
        return clean

    def _status(self, ledger: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "pid": os.getpid(),
            "started": self._started_at,
            "written": wall_ms(),
            "broker": self._home,
            "connectors": ledger,
        }

    def _remind(self) -> None:
        repeats.flush()
        self._of_broker.remind()
        for connector in self.connectors:
            connector.remind()

    def _asked_to_stop(self, seconds: float) -> bool:
        try:
            self._asked.get(timeout=seconds)
        except queue.Empty:
            return False
        return True

    def _prepare(self) -> None:
        for key, why in self._plan.ignored.items():
            log.warning("the setting %s has no effect here: %s", key, why)
        self._broker.protect(
            {
                f"connect-{p.name}": sink_settings(p).subscription
                for p in self._plan.connectors
                if isinstance(p.settings, SinkSettings)
            }
        )
        left = self._parts.spools_found()
        for connector in self.connectors:
            connector.prepare()
        for connector in self.connectors:
            left = connector.adopt(left)
        for path in left:
            log.error(
                "a spool is left on this disk by a connector that is not configured: its records wait",
                extra={"spool": path.name, "way_out": "start its connector again, or delete the file"},
            )

    def _shut_down(self) -> tuple[bool, dict[str, Any]]:
        """Return whether all ended well, and the last ledger: what it counts is closed afterwards."""
        deadline = time.monotonic() + self._plan.worker.task_shutdown_graceful_timeout_ms / 1000
        log.info("stopping")
        for connector in self.connectors:
            connector.interrupt()
        cut_off = [
            thread.environment.id
            for connector in self.connectors
            for thread in connector.threads
            if not thread.join(deadline - time.monotonic())
        ]
        for name in cut_off:
            log.error("the task %s did not stop in time (task.shutdown.graceful.timeout.ms)", name)
        ledger = self.ledger()
        self._watch.stop(max(0.5, deadline - time.monotonic()))
        if self._registry is not None:
            self._registry.stop()
        if not cut_off:
            for connector in self.connectors:
                connector.close()
            self._parts.close()
            self._broker.close()
        log.info("stopped", extra={"ledger": ledger})
        return not cut_off and all(c.state == "STOPPED" for c in self.connectors), ledger

    @property
    def _home(self) -> str:
        servers = self._plan.worker.bootstrap_servers
        return f"Kafka at {','.join(servers)}" if servers else f"local log in {self._plan.worker.data_dir}"
