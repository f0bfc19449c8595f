"""Metrics of a connector's own: which of its counters and durations a worker exports for Prometheus.

A connector class lists them in ``metrics``. Its tasks count with ``context.count`` and measure with
``context.observe``. Counters that are not listed are exported, too, as ``tieline_task_counter_total``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TypeAlias

_NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
_RESERVED_LABELS = ("connector", "instance", "job", "le", "quantile")


@dataclass(frozen=True)
class CounterMetric:
    """Export counters of a connector's tasks as the metric ``tieline_<name>_total``.

    ``counter``: the name of a counter; with ``*`` as its last character, all counters that begin like this,
    and the rest of each name is the value of ``label``. ``help``: a sentence that says what is counted.
    Raises ``ValueError`` if Prometheus would not accept it.
    """

    name: str
    help: str
    counter: str
    label: str = ""

    def __post_init__(self) -> None:
        _check(self.name, self.help)
        if self.counter.endswith("*") != bool(self.label):
            raise ValueError(f"{self.name}: a label belongs to a counter that ends in *, and only to one")
        if self.label and (not _NAME.fullmatch(self.label) or self.label in _RESERVED_LABELS):
            raise ValueError(f"{self.name}: {self.label!r} cannot be the name of a label")


@dataclass(frozen=True)
class DurationMetric:
    """Export durations of a connector's tasks as the histogram ``tieline_<name>``.

    The name ends in ``_seconds``. ``duration``: the name that the tasks pass to ``context.observe``.
    ``help``: a sentence that says what is measured. Raises ``ValueError`` if Prometheus would not accept it.
    """

    name: str
    help: str
    duration: str

    def __post_init__(self) -> None:
        _check(self.name, self.help)
        if not self.name.endswith("_seconds"):
            raise ValueError(f"{self.name}: the name of a duration ends in _seconds")


ConnectorMetric: TypeAlias = CounterMetric | DurationMetric


def _check(name: str, text: str) -> None:
    if not _NAME.fullmatch(name) or name.endswith(("_total", "_bucket", "_count", "_sum")):
        raise ValueError(
            f"{name!r} cannot be the name of a metric: use lower-case letters, digits and single underscores,"
            " without the endings that Prometheus adds"
        )
    if not text:
        raise ValueError(f"{name}: say in help what it means")
