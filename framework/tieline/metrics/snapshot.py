"""What a worker knows at one moment, as the metrics need it. The runtime fills these in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from tieline.api.metrics import ConnectorMetric

BUCKETS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
"""The upper bounds of a histogram's buckets, in seconds; one more bucket has no bound."""


class Distribution(NamedTuple):
    """Observed durations: their number in each bucket, in the order of ``BUCKETS``, and their sum in s."""

    counts: tuple[int, ...]
    total: float

    def plus(self, other: Distribution) -> Distribution:
        """Return both together."""
        return Distribution(
            tuple(a + b for a, b in zip(self.counts, other.counts, strict=True)), self.total + other.total
        )


class TaskSnapshot(NamedTuple):
    """One task. ``counts``: the numbers of the delivery ledger by name. ``retries``: its retried calls.

    ``partitions``: how many partitions a sink owns; ``None`` if it is not in its group, and for a source.
    """

    number: int
    state: str
    counts: Mapping[str, int]
    retries: int
    partitions: int | None = None


class ConnectorSnapshot(NamedTuple):
    """One connector.

    ``ledger``: as ``Worker.ledger`` returns it. ``plugin``: its ``connector.class``. ``spool_limit``: how
    many bytes fit into its spools, 0 without one. ``connected_since``: when the last outage ended or the
    worker started, in seconds since 1970. ``durations``: what its tasks observed, by name.
    """

    ledger: Mapping[str, Any]
    plugin: str
    version: str
    tasks: Sequence[TaskSnapshot]
    spool_limit: int
    connected_since: float
    metrics: Sequence[ConnectorMetric]
    durations: Mapping[str, Distribution]


class WorkerSnapshot(NamedTuple):
    """A worker. ``started``, ``time``: seconds since 1970. ``uptime``: seconds since the start, monotonic."""

    version: str
    started: float
    time: float
    uptime: float
    connectors: Mapping[str, ConnectorSnapshot]
