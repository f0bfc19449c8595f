"""The text of a worker's metrics, in Prometheus' own format and as OpenMetrics."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from prometheus_client.core import Metric
from prometheus_client.exposition import generate_latest as plain_text
from prometheus_client.openmetrics.exposition import generate_latest as openmetrics_text
from prometheus_client.registry import Collector

from tieline.metrics.families import collect
from tieline.metrics.snapshot import WorkerSnapshot
from tieline.metrics.trends import Trends

PLAIN = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
_MAX_AGE = 1.0  # seconds for which a text is kept: so many scrapes at once cost as much as one


class Exposition(NamedTuple):
    """A text of metrics, and its media type."""

    media_type: str
    text: bytes


class WorkerMetrics:
    """Renders the metrics of a worker. Any thread may call it; a text is at most a second old.

    ``read`` returns what the worker knows now. ``clock``: seconds, monotonic.
    """

    def __init__(
        self, read: Callable[[], WorkerSnapshot], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._read = read
        self._clock = clock
        self._trends = Trends()
        self._lock = threading.Lock()
        self._families = _Collected([])
        self._read_at = float("-inf")
        self._texts: dict[str, bytes] = {}

    def render(self, *, openmetrics: bool = False) -> Exposition:
        """Return the metrics as text."""
        media_type = OPENMETRICS if openmetrics else PLAIN
        with self._lock:
            now = self._clock()
            if now - self._read_at >= _MAX_AGE:
                self._families = _Collected(collect(self._read(), self._trends))
                self._read_at, self._texts = now, {}
            if media_type not in self._texts:
                write = openmetrics_text if openmetrics else plain_text
                self._texts[media_type] = write(self._families)
            return Exposition(media_type, self._texts[media_type])


class _Collected(Collector):
    """Families that have been collected, as prometheus-client's writers take them without a registry."""

    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> list[Metric]:
        """Return the families."""
        return self._families
