"""What the metrics of a worker are made of: its ledgers, its tasks and its outages at one moment."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tieline import __version__
from tieline.config.plan import SourcePlan
from tieline.metrics.snapshot import ConnectorSnapshot, Distribution, TaskSnapshot, WorkerSnapshot
from tieline.runtime.task.ledger import Counts
from tieline.runtime.worker.connector import RunningConnector
from tieline.runtime.worker.states import worst
from tieline.runtime.worker.task_thread import TaskThread

if TYPE_CHECKING:
    from tieline.runtime.worker.worker import Worker


class WorkerClock:
    """When a worker started, and how long ago that is."""

    def __init__(self) -> None:
        self.started = time.time()
        self._started = time.monotonic()

    def uptime(self) -> float:
        """Return the seconds since the start; a change of the time of day does not affect them."""
        return time.monotonic() - self._started


def take_snapshot(
    worker: Worker, ledgers: Mapping[str, Mapping[str, Any]], clock: WorkerClock
) -> WorkerSnapshot:
    """Return what is known about a worker; ``ledgers`` is what ``Worker.ledger`` has returned just now."""
    recovered = worker.broker_recovered_ms
    connectors = {
        connector.name: _connector(connector, ledgers[connector.name], recovered, clock)
        for connector in worker.connectors
    }
    return WorkerSnapshot(__version__, clock.started, time.time(), clock.uptime(), connectors)


def _connector(
    connector: RunningConnector, ledger: Mapping[str, Any], broker_recovered: int | None, clock: WorkerClock
) -> ConnectorSnapshot:
    plan = connector.plan
    recovered = [each for each in (broker_recovered, connector.outages.recovered_ms()) if each is not None]
    threads: dict[int, list[TaskThread]] = {}
    for thread in connector.threads:
        threads.setdefault(thread.environment.task, []).append(thread)
    durations: dict[str, Distribution] = {}
    for parts in threads.values():  # the parts of a task share what they count and observe
        for name, distribution in parts[0].environment.durations.all().items():
            before = durations.get(name)
            durations[name] = distribution if before is None else before.plus(distribution)
    limit = plan.settings.spool_max_bytes if isinstance(plan, SourcePlan) else 0
    return ConnectorSnapshot(
        ledger,
        plan.settings.connector_class,
        plan.connector.version,
        [_task(number, parts) for number, parts in sorted(threads.items())],
        limit * len(connector.spools),
        max(recovered, default=clock.started * 1000) / 1000,
        plan.connector.metrics,
        durations,
    )


def _task(number: int, parts: list[TaskThread]) -> TaskSnapshot:
    stats = [thread.stats for thread in parts]
    counts = Counts(*(sum(column) for column in zip(*stats, strict=True)))
    state = worst({thread.state for thread in parts})
    environment = parts[0].environment  # the parts of a task share what they count
    return TaskSnapshot(
        number, state, counts._asdict(), environment.counters["retries"], environment.activity.partitions
    )
