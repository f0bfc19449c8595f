"""Kafka Connect's metrics, by the names that its exporter gives them, so that its dashboards work here."""

from __future__ import annotations

from tieline.metrics.definition import CONNECTOR, TASK, Definition

CONNECT_TASK_COUNTS = ("running", "restarting", "paused", "failed", "unassigned", "destroyed")
"""The states by which Kafka Connect counts the tasks of a connector."""

KAFKA_CONNECT: tuple[Definition, ...] = (
    Definition("kafka_connect_worker_connector_count", "gauge", (), "Connectors of the worker."),
    Definition("kafka_connect_worker_task_count", "gauge", (), "Tasks of the worker."),
    Definition("kafka_connect_coordinator_assigned_connectors", "gauge", (), "Connectors of the worker."),
    Definition("kafka_connect_coordinator_assigned_tasks", "gauge", (), "Tasks of the worker."),
    Definition(
        "kafka_connect_worker_connector_total_task_count", "gauge", CONNECTOR, "Tasks of the connector."
    ),
    *(
        Definition(
            f"kafka_connect_worker_connector_{state}_task_count",
            "gauge",
            CONNECTOR,
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
        "kafka_connect_task_error_total_record_failures", "gauge", TASK, "Records that could not be handled."
    ),
    Definition("kafka_connect_task_error_total_record_errors", "gauge", TASK, "The same."),
    Definition(
        "kafka_connect_task_error_total_records_skipped",
        "gauge",
        TASK,
        "Records that were passed over because of an error: each is a dead letter.",
    ),
    Definition("kafka_connect_task_error_total_retries", "gauge", TASK, "Calls that were repeated."),
    Definition(
        "kafka_connect_task_error_deadletterqueue_produce_requests", "gauge", TASK, "Dead letters written."
    ),
    Definition(
        "kafka_connect_source_task_source_record_poll_total", "counter", TASK, "Records that a source read."
    ),
    Definition(
        "kafka_connect_source_task_source_record_write_total",
        "counter",
        TASK,
        "Records of a source that the broker acknowledged.",
    ),
    Definition(
        "kafka_connect_source_task_source_record_active_count",
        "gauge",
        TASK,
        "Records of a source that were read and have not ended yet.",
    ),
    Definition(
        "kafka_connect_sink_task_sink_record_read_total", "counter", TASK, "Records that a sink read."
    ),
    Definition(
        "kafka_connect_sink_task_sink_record_send_total", "counter", TASK, "Records that a sink delivered."
    ),
    Definition("kafka_connect_sink_task_partition_count", "gauge", TASK, "Partitions that a sink owns."),
    Definition(
        "kafka_connect_sink_task_sink_record_active_count",
        "gauge",
        TASK,
        "Records of a sink that were read and have not ended yet.",
    ),
)
