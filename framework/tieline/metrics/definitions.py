"""The table of all metrics: name, type, labels and meaning. The reference is generated from it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from tieline.api.metrics import ConnectorMetric, CounterMetric
from tieline.metrics.definition import CONNECTOR, TASK, Definition
from tieline.metrics.kafka_connect import KAFKA_CONNECT

STATES = ("running", "restarting", "paused", "failed", "unassigned", "stopped")
"""The states of a connector and of a task, as they are in labels."""

OUTCOMES = ("received", "delivered", "dead_lettered", "filtered", "in_flight")
"""What a ledger counts."""

_RECORDS = ("connector", "type")

WORKER: tuple[Definition, ...] = (
    Definition(
        "tieline_build_info", "gauge", ("version",), "Always 1; the label has the version of tieline."
    ),
    Definition(
        "tieline_worker_start_time_seconds", "gauge", (), "When the worker started, in seconds since 1970."
    ),
    Definition(
        "tieline_worker_heartbeat_timestamp_seconds",
        "gauge",
        (),
        "When the worker read the numbers of this scrape or file, in seconds since 1970.",
    ),
    Definition(
        "tieline_process_cpu_seconds_total", "counter", (), "CPU time of the worker's process, in seconds."
    ),
    Definition("tieline_process_resident_memory_bytes", "gauge", (), "Resident memory of the process."),
    Definition("tieline_process_open_fds", "gauge", (), "Open file descriptors of the process."),
    Definition("tieline_process_max_fds", "gauge", (), "The largest number of open file descriptors."),
)

CONNECTORS: tuple[Definition, ...] = (
    Definition(
        "tieline_connector_state",
        "gauge",
        ("connector", "type", "state"),
        f"1 for the state that the connector is in, 0 for the others: {', '.join(STATES)}.",
    ),
    Definition(
        "tieline_task_state",
        "gauge",
        ("connector", "task", "state"),
        "1 for the state that the task is in, 0 for the others.",
    ),
    Definition(
        "tieline_connected",
        "gauge",
        CONNECTOR,
        "1 if every system that the connector needs can be reached, the broker included, otherwise 0.",
    ),
    Definition(
        "tieline_connected_since_timestamp_seconds",
        "gauge",
        CONNECTOR,
        "When the last outage ended or the worker started, in seconds since 1970; missing during an outage.",
    ),
    Definition("tieline_restarts_total", "counter", CONNECTOR, "Restarts of failed tasks."),
    Definition(
        "tieline_last_received_timestamp_seconds",
        "gauge",
        CONNECTOR,
        "When the connector received its last records, in seconds since 1970; missing before the first.",
    ),
    Definition(
        "tieline_last_delivered_timestamp_seconds",
        "gauge",
        CONNECTOR,
        "When the connector delivered its last records, in seconds since 1970; missing before the first.",
    ),
    Definition(
        "tieline_restart_attempts",
        "gauge",
        CONNECTOR,
        "Restarts since the connector was healthy: the most of any of its tasks.",
    ),
    Definition(
        "tieline_restart_breaker_open",
        "gauge",
        CONNECTOR,
        "1 if a task is not restarted for now because its budget of restarts is used up, otherwise 0.",
    ),
    Definition(
        "tieline_outage_seconds",
        "gauge",
        CONNECTOR,
        "How long the longest current outage lasts; 0 without one.",
    ),
)

RECORDS: tuple[Definition, ...] = (
    Definition(
        "tieline_source_records_total",
        "counter",
        CONNECTOR,
        "Records that a source took from its external system, into its spool if it has one.",
    ),
    Definition(
        "tieline_records_received_total",
        "counter",
        _RECORDS,
        "Records that entered the ledger; what is read again after a rebalance counts once.",
    ),
    Definition("tieline_records_delivered_total", "counter", _RECORDS, "Records that were delivered."),
    Definition(
        "tieline_records_dead_lettered_total", "counter", _RECORDS, "Records that became dead letters."
    ),
    Definition("tieline_records_filtered_total", "counter", _RECORDS, "Records that a transform dropped."),
    Definition(
        "tieline_records_in_flight", "gauge", _RECORDS, "Records that were received and have not ended yet."
    ),
    Definition(
        "tieline_records_skipped_total",
        "counter",
        ("connector", "reason"),
        "Records that a sink never stores although nothing failed, such as expired ones or tombstones.",
    ),
    Definition(
        "tieline_dead_letters_total",
        "counter",
        ("connector", "stage"),
        "Dead letters by the stage at which their records failed.",
    ),
    Definition("tieline_records_dropped_total", "counter", CONNECTOR, "Records that were lost."),
    Definition(
        "tieline_records_dropped_by_reason_total",
        "counter",
        ("connector", "reason"),
        "The same by the limit that was reached or the damage that was found.",
    ),
    Definition(
        "tieline_records_quarantined_total",
        "counter",
        ("connector", "reason"),
        "Inputs that could not be parsed and were kept aside.",
    ),
    Definition(
        "tieline_topic_records",
        "gauge",
        ("connector", "topic", "outcome"),
        "Records of a topic by what became of them, as the durable ledger of the owned partitions has it: "
        f"{', '.join(OUTCOMES)}.",
    ),
    Definition(
        "tieline_ledger_mismatch_records",
        "gauge",
        CONNECTOR,
        "Records by which the ledger differs from the committed offsets, or of a source from the position of "
        "its spool; 0 if it adds up.",
    ),
    Definition(
        "tieline_lag_records", "gauge", CONNECTOR, "Records in its topics that a sink has not read yet."
    ),
    Definition(
        "tieline_lag_seconds",
        "gauge",
        CONNECTOR,
        "How long the oldest record that a sink has not delivered yet has waited; 0 if none waits.",
    ),
    Definition(
        "tieline_task_retries_total", "counter", TASK, "Calls that a task repeated because of an outage."
    ),
    Definition(
        "tieline_task_counter_total",
        "counter",
        ("connector", "name"),
        "Each further counter of a connector's tasks, by its name.",
    ),
)

SPOOL: tuple[Definition, ...] = (
    Definition("tieline_spool_records", "gauge", CONNECTOR, "Records that wait in the connector's spools."),
    Definition("tieline_spool_bytes", "gauge", CONNECTOR, "Bytes that wait in the connector's spools."),
    Definition(
        "tieline_spool_limit_bytes", "gauge", CONNECTOR, "Bytes that fit into the spools (spool.max.bytes)."
    ),
    Definition(
        "tieline_spool_age_seconds",
        "gauge",
        CONNECTOR,
        "How long the oldest record of the spools has waited; 0 if they are empty.",
    ),
    Definition(
        "tieline_spool_hours_until_full",
        "gauge",
        CONNECTOR,
        "Hours until the spools are full if they grow as in the last ten minutes; +Inf if they do not grow.",
    ),
)

GROUPS: Mapping[str, tuple[Definition, ...]] = {
    "worker": WORKER,
    "connectors": CONNECTORS,
    "records": RECORDS,
    "spool": SPOOL,
    "kafka-connect": KAFKA_CONNECT,
}
"""All definitions of the framework, by group."""

DEFINITIONS: Mapping[str, Definition] = {
    definition.name: definition for group in GROUPS.values() for definition in group
}
"""All definitions of the framework by name."""


def connector_definition(metric: ConnectorMetric) -> Definition:
    """Return the definition of a connector's own metric."""
    if isinstance(metric, CounterMetric):
        labels = ("connector", metric.label) if metric.label else CONNECTOR
        return Definition(f"tieline_{metric.name}_total", "counter", labels, metric.help)
    return Definition(f"tieline_{metric.name}", "histogram", CONNECTOR, metric.help)


def connector_definitions(metrics: Iterable[ConnectorMetric]) -> dict[ConnectorMetric, Definition]:
    """Return the definitions of those metrics whose name is free; of equal names only the first."""
    definitions: dict[ConnectorMetric, Definition] = {}
    taken = set(DEFINITIONS)
    for metric in metrics:
        definition = connector_definition(metric)
        if metric not in definitions and definition.name not in taken:
            taken.add(definition.name)
            definitions[metric] = definition
    return definitions
