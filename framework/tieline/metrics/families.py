"""From a snapshot of a worker to Prometheus' metric families."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterable, Mapping
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.process_collector import ProcessCollector

from tieline.api.metrics import ConnectorMetric, CounterMetric
from tieline.metrics.definition import Definition
from tieline.metrics.definitions import (
    DEFINITIONS,
    OUTCOMES,
    STATES,
    connector_definitions,
)
from tieline.metrics.kafka_connect import CONNECT_TASK_COUNTS
from tieline.metrics.snapshot import BUCKETS, ConnectorSnapshot, Distribution, TaskSnapshot, WorkerSnapshot
from tieline.metrics.trends import Trends
from tieline.times import iso_ms

log = logging.getLogger(__name__)

_MOST_COUNTERS = 500
"""So many further counters of a connector are exported: what a plugin counts by must not fill Prometheus."""
_MOST_TOPICS = 500
_DROPPED = ("dropped.", "lost.")
_OTHERWISE = ("restarts", "retries", "spooled")
"""Counters that a metric of the framework contains under another name."""


class Families:
    """Collects samples by metric. A sample must have the labels that its definition names."""

    def __init__(self, definitions: Mapping[str, Definition]) -> None:
        self._definitions = definitions
        self._families: dict[str, Any] = {}

    def add(self, name: str, value: float, /, **labels: str) -> None:
        """Add a sample of a counter or a gauge."""
        self._family(name).add_metric(self._values(name, labels), value)

    def add_distribution(self, name: str, distribution: Distribution, /, **labels: str) -> None:
        """Add a histogram."""
        bounds = [*map(str, BUCKETS), "+Inf"]
        buckets = list(zip(bounds, itertools.accumulate(distribution.counts), strict=True))
        self._family(name).add_metric(self._values(name, labels), buckets, distribution.total)

    def all(self) -> list[Metric]:
        """Return the families that have samples, in the order of the definitions."""
        return [self._families[name] for name in self._definitions if name in self._families]

    def _family(self, name: str) -> Any:
        if name not in self._families:
            definition = self._definitions[name]
            arguments = name, definition.help
            if definition.kind == "counter":
                family: Metric = CounterMetricFamily(*arguments, labels=definition.labels)
            elif definition.kind == "gauge":
                family = GaugeMetricFamily(*arguments, labels=definition.labels)
            else:
                family = HistogramMetricFamily(*arguments, labels=definition.labels)
            self._families[name] = family
        return self._families[name]

    def _values(self, name: str, labels: Mapping[str, str]) -> list[str]:
        wanted = self._definitions[name].labels
        if labels.keys() != set(wanted):
            raise ValueError(f"{name} has the labels {wanted}, not {tuple(labels)}")
        return [labels[label] for label in wanted]


def collect(snapshot: WorkerSnapshot, trends: Trends) -> list[Metric]:
    """Return the families of a worker, those of its connectors' own metrics last."""
    own = connector_definitions(
        metric for connector in snapshot.connectors.values() for metric in connector.metrics
    )
    families = Families({**DEFINITIONS, **{definition.name: definition for definition in own.values()}})
    _add_worker(families, snapshot)
    for name, connector in snapshot.connectors.items():
        _add_connector(families, name, connector)
        _add_outages(families, name, connector, snapshot)
        _add_records(families, name, connector, trends)
        _add_spool(families, name, connector, snapshot.uptime, trends)
        for task in connector.tasks:
            _add_task(families, name, connector, task, trends)
        _add_counters(families, name, connector, own, trends)
    return families.all()


def _add_worker(families: Families, snapshot: WorkerSnapshot) -> None:
    families.add("tieline_build_info", 1, version=snapshot.version)
    families.add("tieline_worker_start_time_seconds", snapshot.started)
    families.add("tieline_worker_heartbeat_timestamp_seconds", snapshot.time)
    for metric in ProcessCollector(namespace="tieline", registry=None).collect():
        for sample in metric.samples:
            if sample.name in DEFINITIONS:
                families.add(sample.name, sample.value)
    connectors, tasks = len(snapshot.connectors), sum(len(c.tasks) for c in snapshot.connectors.values())
    families.add("kafka_connect_worker_connector_count", connectors)
    families.add("kafka_connect_worker_task_count", tasks)
    families.add("kafka_connect_coordinator_assigned_connectors", connectors)
    families.add("kafka_connect_coordinator_assigned_tasks", tasks)


def _add_connector(families: Families, name: str, connector: ConnectorSnapshot) -> None:
    kind, current = str(connector.ledger["type"]), _state(connector.ledger["state"])
    for state in STATES:
        families.add("tieline_connector_state", state == current, connector=name, type=kind, state=state)
    for event in ("received", "delivered"):
        if (milliseconds := connector.ledger.get(f"last_{event}_ms")) is not None:
            families.add(f"tieline_last_{event}_timestamp_seconds", milliseconds / 1000, connector=name)
    families.add("tieline_restart_attempts", connector.ledger.get("attempts", 0), connector=name)
    breaker_open = connector.ledger.get("breaker") == "open"
    families.add("tieline_restart_breaker_open", breaker_open, connector=name)
    prefix = "kafka_connect_worker_connector"
    families.add(f"{prefix}_total_task_count", len(connector.tasks), connector=name)
    states = [_state(task.state) for task in connector.tasks]
    for state in CONNECT_TASK_COUNTS:
        families.add(f"{prefix}_{state}_task_count", states.count(state), connector=name)
    prefix = "kafka_connect_connector"
    families.add(f"{prefix}_status", 1, connector=name, status=current)
    families.add(f"{prefix}_connector_class", 1, connector=name, connector_class=connector.plugin)
    families.add(f"{prefix}_connector_type", 1, connector=name, connector_type=kind)
    families.add(f"{prefix}_connector_version", 1, connector=name, connector_version=connector.version)


def _add_outages(
    families: Families, name: str, connector: ConnectorSnapshot, snapshot: WorkerSnapshot
) -> None:
    outages = [_seconds(each["since"], snapshot.time) for each in connector.ledger.get("not_connected", ())]
    families.add("tieline_connected", not outages, connector=name)
    longest = max((snapshot.time - start for start in outages), default=0.0)
    families.add("tieline_outage_seconds", max(0.0, longest), connector=name)
    if not outages:
        since = connector.connected_since
        families.add("tieline_connected_since_timestamp_seconds", since, connector=name)


def _add_records(families: Families, name: str, connector: ConnectorSnapshot, trends: Trends) -> None:
    ledger = connector.ledger
    labels = {"connector": name, "type": str(ledger["type"])}
    received = trends.highest(name, ledger["received"])
    families.add("tieline_records_received_total", received, **labels)
    if ledger["type"] == "source":
        taken = ledger.get("counters", {}).get("spooled", 0) if "spool_records" in ledger else received
        families.add("tieline_source_records_total", taken, connector=name)
    for key in ("delivered", "dead_lettered", "filtered"):
        families.add(f"tieline_records_{key}_total", ledger[key], **labels)
    families.add("tieline_records_in_flight", ledger["in_flight"], **labels)
    for key, metric in (
        ("lag", "tieline_lag_records"),
        ("lag_seconds", "tieline_lag_seconds"),
    ):
        if ledger.get(key) is not None:
            families.add(metric, ledger[key], connector=name)
    topics = ledger.get("topics")
    mismatch = ledger.get("mismatch")
    if topics is not None:
        # Added up without signs: what is missing in one topic is not balanced by what another has too much.
        mismatch = sum(abs(numbers["mismatch"]) for numbers in topics.values())
    if mismatch is not None:
        families.add("tieline_ledger_mismatch_records", mismatch, connector=name)
    for topic, numbers in itertools.islice((topics or {}).items(), _MOST_TOPICS):
        for outcome in OUTCOMES:
            labels = {"connector": name, "topic": topic, "outcome": outcome}
            families.add("tieline_topic_records", numbers[outcome], **labels)


def _add_spool(
    families: Families, name: str, connector: ConnectorSnapshot, now: float, trends: Trends
) -> None:
    ledger = connector.ledger
    for key in ("spool_records", "spool_bytes", "spool_age_seconds"):
        value = ledger.get(key)
        if value is not None:
            families.add(f"tieline_{key}", value, connector=name)
    used = ledger.get("spool_bytes")
    if connector.spool_limit and used is not None:
        families.add("tieline_spool_limit_bytes", connector.spool_limit, connector=name)
        hours = trends.hours_until_full(name, now, used, connector.spool_limit)
        families.add("tieline_spool_hours_until_full", hours, connector=name)


def _add_task(
    families: Families, name: str, connector: ConnectorSnapshot, task: TaskSnapshot, trends: Trends
) -> None:
    labels = {"connector": name, "task": str(task.number)}
    current = _state(task.state)
    for state in STATES:
        families.add("tieline_task_state", state == current, state=state, **labels)
    families.add("tieline_task_retries_total", task.retries, **labels)
    families.add("kafka_connect_connector_task_status", 1, status=current, **labels)
    counts = task.counts
    prefix = "kafka_connect_task_error"
    for metric in ("total_record_failures", "total_record_errors", "total_records_skipped"):
        families.add(f"{prefix}_{metric}", counts["dead_lettered"], **labels)
    families.add(f"{prefix}_total_retries", task.retries, **labels)
    families.add(f"{prefix}_deadletterqueue_produce_requests", counts["dead_lettered"], **labels)
    if connector.ledger["type"] == "source":
        prefix, read, sent = "kafka_connect_source_task_source_record", "poll", "write"
    else:
        prefix, read, sent = "kafka_connect_sink_task_sink_record", "read", "send"
        partitions = task.partitions or 0
        families.add("kafka_connect_sink_task_partition_count", partitions, **labels)
    received = trends.highest((name, task.number), counts["received"])
    families.add(f"{prefix}_{read}_total", received, **labels)
    families.add(f"{prefix}_{sent}_total", counts["delivered"], **labels)
    families.add(f"{prefix}_active_count", counts["in_flight"], **labels)


def _add_counters(
    families: Families,
    name: str,
    connector: ConnectorSnapshot,
    own: Mapping[ConnectorMetric, Definition],
    trends: Trends,
) -> None:
    counters: dict[str, int] = dict(connector.ledger.get("counters", {}))
    dropped = sum(number for counter, number in counters.items() if counter.startswith(_DROPPED))
    families.add("tieline_records_dropped_total", dropped, connector=name)
    families.add("tieline_restarts_total", counters.get("restarts", 0), connector=name)
    for counter in _OTHERWISE:
        counters.pop(counter, None)
    for prefixes, metric in (
        (("skipped.",), "tieline_records_skipped_total"),
        (("dead_letters.",), "tieline_dead_letters_total"),
        (_DROPPED, "tieline_records_dropped_by_reason_total"),
        (("quarantined.",), "tieline_records_quarantined_total"),
    ):
        for counter in [each for each in counters if each.startswith(prefixes)]:
            reason = counter if prefixes == _DROPPED else counter.partition(".")[2]
            label = DEFINITIONS[metric].labels[1]
            families.add(metric, counters.pop(counter), **{"connector": name, label: reason})
    for each in connector.metrics:
        definition = own.get(each)
        if definition is None:
            if trends.is_new((name, each)):
                log.warning("%s: the metric %s is not exported: its name is taken", name, each.name)
            continue
        if isinstance(each, CounterMetric):
            for value, number in _matching(counters, each):
                labels = {each.label: value} if each.label else {}
                families.add(definition.name, number, connector=name, **labels)
        else:
            empty = Distribution((0,) * (len(BUCKETS) + 1), 0.0)
            distribution = connector.durations.get(each.duration, empty)
            families.add_distribution(definition.name, distribution, connector=name)
    for counter in sorted(counters)[:_MOST_COUNTERS]:
        families.add("tieline_task_counter_total", counters[counter], connector=name, name=counter)


def _matching(counters: dict[str, int], metric: CounterMetric) -> Iterable[tuple[str, int]]:
    """Remove a metric's counters; yield the value of its label and the number of each."""
    if not metric.label:
        yield "", counters.pop(metric.counter, 0)
        return
    prefix = metric.counter[:-1]
    for counter in sorted(each for each in counters if each.startswith(prefix)):
        yield counter[len(prefix) :], counters.pop(counter)


def _seconds(time: str, now: float) -> float:
    """Return an ISO time as seconds since 1970; ``now`` if a wrong clock wrote it in another form."""
    ms = iso_ms(time)
    return now if ms is None else ms / 1000


def _state(state: Any) -> str:
    return str(state).lower()
