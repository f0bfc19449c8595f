"""The table of all metrics: name, type, labels and meaning. The reference is generated from it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple, TypeAlias

from tieline.api.metrics import ConnectorMetric, CounterMetric

Kind: TypeAlias = Literal["counter", "gauge", "histogram"]

STATES = ("running", "restarting", "paused", "failed", "unassigned", "stopped")
"""The states of a connector and of a task, as they are in labels."""

OUTCOMES = ("received", "delivered", "dead_lettered", "filtered", "in_flight")
"""What a ledger counts."""

CONNECT_TASK_COUNTS = ("running", "restarting", "paused", "failed", "unassigned", "destroyed")
"""The states by which Kafka Connect counts the tasks of a connector."""


class Definition(NamedTuple):
    """One metric. A counter's name ends in ``_total``."""

    name: str
    kind: Kind
    labels: tuple[str, ...]
    help: str


_CONNECTOR = ("connector",)
_TASK = ("connector", "task")
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
        _CONNECTOR,
        "1 if every system that the connector needs can be reached, the broker included, otherwise 0.",
    ),
    Definition(
        "tieline_connected_since_timestamp_seconds",
        "gauge",
        _CONNECTOR,
        "When the last outage ended or the worker started, in seconds since 1970; missing during an outage.",
    ),
    Definition("tieline_restarts_total", "counter", _CONNECTOR, "Restarts of failed tasks."),
    Definition(
        "tieline_last_received_timestamp_seconds",
        "gauge",
        _CONNECTOR,
        "When the connector received its last records, in seconds since 1970; missing before the first.",
    ),
    Definition(
        "tieline_last_delivered_timestamp_seconds",
        "gauge",
        _CONNECTOR,
        "When the connector delivered its last records, in seconds since 1970; missing before the first.",
    ),
    Definition(
        "tieline_restart_attempts",
        "gauge",
        _CONNECTOR,
        "Restarts since the connector was healthy: the most of any of its tasks.",
    ),
    Definition(
        "tieline_restart_breaker_open",
        "gauge",
        _CONNECTOR,
        "1 if a task is not restarted for now because its budget of restarts is used up, otherwise 0.",
    ),
    Definition(
        "tieline_outage_seconds",
        "gauge",
        _CONNECTOR,
        "How long the longest current outage lasts; 0 without one.",
    ),
)

RECORDS: tuple[Definition, ...] = (
    Definition(
        "tieline_source_records_total",
        "counter",
        _CONNECTOR,
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
    Definition("tieline_records_dropped_total", "counter", _CONNECTOR, "Records that were lost."),
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
        _CONNECTOR,
        "Records by which the ledger differs from the broker's offsets; 0 if it adds up.",
    ),
    Definition(
        "tieline_lag_records", "gauge", _CONNECTOR, "Records in its topics that a sink has not read yet."
    ),
    Definition(
        "tieline_lag_seconds",
        "gauge",
        _CONNECTOR,
        "How long the oldest record that a sink has not delivered yet has waited; 0 if none waits.",
    ),
    Definition(
        "tieline_task_retries_total", "counter", _TASK, "Calls that a task repeated because of an outage."
    ),
    Definition(
        "tieline_task_counter_total",
        "counter",
        ("connector", "name"),
        "Each further counter of a connector's tasks, by its name.",
    ),
)

SPOOL: tuple[Definition, ...] = (
    Definition("tieline_spool_records", "gauge", _CONNECTOR, "Records that wait in the connector's spools."),
    Definition("tieline_spool_bytes", "gauge", _CONNECTOR, "Bytes that wait in the connector's spools."),
    Definition(
        "tieline_spool_limit_bytes", "gauge", _CONNECTOR, "Bytes that fit into the spools (spool.max.bytes)."
    ),
    Definition(
        "tieline_spool_age_seconds",
        "gauge",
        _CONNECTOR,
        "How long the oldest record of the spools has waited; 0 if they are empty.",
    ),
    Definition(
        "tieline_spool_hours_until_full",
        "gauge",
        _CONNECTOR,
        "Hours until the spools are full if they grow as in the last ten minutes; +Inf if they do not grow.",
    ),
)

KAFKA_CONNECT: tuple[Definition, ...] = (
    Definition("kafka_connect_worker_connector_count", "gauge", (), "Connectors of the worker."),
    Definition("kafka_connect_worker_task_count", "gauge", (), "Tasks of the worker."),
    Definition("kafka_connect_coordinator_assigned_connectors", "gauge", (), "Connectors of the worker."),
    Definition("kafka_connect_coordinator_assigned_tasks", "gauge", (), "Tasks of the worker."),
    Definition(
        "kafka_connect_worker_connector_total_task_count", "gauge", _CONNECTOR, "Tasks of the connector."
    ),
    *(
        Definition(
            f"kafka_connect_worker_connector_{state}_task_count",
            "gauge",
            _CONNECTOR,
            f"Tasks in the state {state}.",
        )
        for state in CONNECT_TASK_COUNTS
    ),
    Definition(
        "kafka_connect_connector_status",
        "gauge",
        ("connector", "status"),
        "1 for the state that the connector is in; other states are missing.",
    ),
    Definition(
        "kafka_connect_connector_connector_class",
        "gauge",
        ("connector", "connector_class"),
        "Always 1; the label has the plugin.",
    ),
    Definition(
        "kafka_connect_connector_connector_type",
        "gauge",
        ("connector", "connector_type"),
        "Always 1; the label is source or sink.",
    ),
    Definition(
        "kafka_connect_connector_connector_version",
        "gauge",
        ("connector", "connector_version"),
        "Always 1; the label has the plugin's version.",
    ),
    Definition(
        "kafka_connect_connector_task_status",
        "gauge",
        ("connector", "task", "status"),
        "1 for the state that the task is in; other states are missing.",
    ),
    Definition(
        "kafka_connect_task_error_total_record_failures", "gauge", _TASK, "Records that could not be handled."
    ),
    Definition("kafka_connect_task_error_total_record_errors", "gauge", _TASK, "The same."),
    Definition(
        "kafka_connect_task_error_total_records_skipped",
        "gauge",
        _TASK,
        "Records that were passed over because of an error: each is a dead letter.",
    ),
    Definition("kafka_connect_task_error_total_retries", "gauge", _TASK, "Calls that were repeated."),
    Definition(
        "kafka_connect_task_error_deadletterqueue_produce_requests", "gauge", _TASK, "Dead letters written."
    ),
    Definition(
        "kafka_connect_source_task_source_record_poll_total", "counter", _TASK, "Records that a source read."
    ),
    Definition(
        "kafka_connect_source_task_source_record_write_total",
        "counter",
        _TASK,
        "Records of a source that the broker acknowledged.",
    ),
    Definition(
        "kafka_connect_source_task_source_record_active_count",
        "gauge",
        _TASK,
        "Records of a source that were read and have not ended yet.",
    ),
    Definition(
        "kafka_connect_sink_task_sink_record_read_total", "counter", _TASK, "Records that a sink read."
    ),
    Definition(
        "kafka_connect_sink_task_sink_record_send_total", "counter", _TASK, "Records that a sink delivered."
    ),
    Definition("kafka_connect_sink_task_partition_count", "gauge", _TASK, "Partitions that a sink owns."),
    Definition(
        "kafka_connect_sink_task_sink_record_active_count",
        "gauge",
        _TASK,
        "Records of a sink that were read and have not ended yet.",
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
        labels = ("connector", metric.label) if metric.label else _CONNECTOR
        return Definition(f"tieline_{metric.name}_total", "counter", labels, metric.help)
    return Definition(f"tieline_{metric.name}", "histogram", _CONNECTOR, metric.help)


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
