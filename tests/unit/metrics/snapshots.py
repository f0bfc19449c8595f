"""Snapshots of workers, and the samples of their metrics by name and labels."""

from __future__ import annotations

from typing import Any

from tieline.metrics.families import collect
from tieline.metrics.snapshot import ConnectorSnapshot, TaskSnapshot, WorkerSnapshot
from tieline.metrics.trends import Trends

COUNTS = {"received": 10, "delivered": 6, "dead_lettered": 1, "filtered": 2, "in_flight": 1}


def make_task(number: int = 0, state: str = "RUNNING", retries: int = 0, **counts: int) -> TaskSnapshot:
    return TaskSnapshot(number, state, {**COUNTS, **counts}, retries)


def make_connector(
    kind: str = "sink", *, tasks=None, spool_limit=0, metrics=(), durations=None, **ledger: Any
) -> ConnectorSnapshot:
    tasks = [make_task()] if tasks is None else tasks
    ledger = {"type": kind, "state": "RUNNING", **COUNTS, "counters": {}, **ledger}
    return ConnectorSnapshot(ledger, "file", "1.2", tasks, spool_limit, 500.0, metrics, durations or {})


def make_worker(uptime: float = 100.0, **connectors: ConnectorSnapshot) -> WorkerSnapshot:
    return WorkerSnapshot("9.9", 1000.0, 1000.0 + uptime, uptime, connectors)


def samples_of(snapshot: WorkerSnapshot, trends: Trends | None = None) -> dict[tuple[str, ...], float]:
    """Each sample's value by its name and its labels, sorted, as ``label=value``."""
    return {
        (sample.name, *(f"{label}={value}" for label, value in sorted(sample.labels.items()))): sample.value
        for family in collect(snapshot, trends or Trends())
        for sample in family.samples
    }
