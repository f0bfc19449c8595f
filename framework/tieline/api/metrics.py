"""Metrics of a connector's own: which of its counters and durations a worker exports for Prometheus.

A connector class lists them in ``metrics``. Its tasks count with ``context.count`` and measure with
``context.observe``. Counters that are not listed are exported, too, as ``tieline_task_counter_total``.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias


class CounterMetric(NamedTuple):
    """Export counters of a connector's tasks as the metric ``tieline_<name>_total``.

    ``counter``: the name of a counter; with ``*`` as its last character, all counters that begin like this,
    and the rest of each name is the value of ``label``. ``help``: a sentence that says what is counted.
    """

    name: str
    help: str
    counter: str
    label: str = ""


class DurationMetric(NamedTuple):
    """Export durations of a connector's tasks as the histogram ``tieline_<name>``.

    The name ends in ``_seconds``.
    ``duration``: the name that the tasks pass to ``context.observe``. ``help``: what is measured.
    """

    name: str
    help: str
    duration: str


ConnectorMetric: TypeAlias = CounterMetric | DurationMetric
