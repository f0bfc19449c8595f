"""The settings of a worker and of every connector; the keys are Kafka Connect's where they mean the same."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal, NamedTuple

from tieline.api import CommaList, Config, setting
from tieline.api.config import TopicName, TopicNames
from tieline.broker.internal import matches, replay_topic
from tieline.config.dead_letters import DeadLetterSettings
from tieline.config.restart_settings import RestartSettings
from tieline.config.retry_policy import RetryPolicy
from tieline.config.unsupported import NO_COPIES, server_problem, url_problem

_READ_BY_ITSELF = (
    "is also read by this connector, which would read its own dead letters. Give another name, or a narrower "
    "topics.regex"
)


class Timing(NamedTuple):
    """How much at once and how often; times in seconds."""

    offset_flush: float = 5.0
    max_records: int = 2000
    max_wait: float = 0.1
    drain: float = 2.0
    """How long a source waits for acknowledgements when it stops."""
    call_timeout: float = 2.0
    """The longest time that one call to the broker blocks; less than the graceful timeout."""


class Subscription(NamedTuple):
    """What a sink reads: these topics, or all topics whose whole name matches."""

    topics: tuple[str, ...]
    pattern: str | None


class WorkerSettings(Config):
    """One worker process; with ``bootstrap.servers`` its broker is Kafka, without it the local log."""

    bootstrap_servers: CommaList = setting(
        "bootstrap.servers",
        (),
        doc="Kafka brokers as host:port, separated by commas. Empty: the local log, a SQLite file in "
        "data.dir.",
        importance="high",
    )
    data_dir: Path = setting(
        "data.dir",
        Path("tieline-data"),
        doc="Folder of the local log and the spools. Only one worker may use it.",
        importance="high",
    )
    plugin_path: CommaList = setting(
        "plugin.path",
        (),
        doc="Folders of dropped-in plugins (wheels, or unpacked distributions), separated by commas.",
    )
    key_converter: str = setting(
        "key.converter", "string", doc="The converter for keys. A connector without one uses the worker's."
    )
    value_converter: str = setting(
        "value.converter", "avro", doc="The converter for values. A connector without one uses the worker's."
    )
    schema_registry_url: str = setting(
        "schema.registry.url",
        "",
        doc="A schema registry elsewhere. Empty: the topic _schemas of the broker. embedded: that "
        "topic, served to other programs from this worker.",
    )
    listeners: str = setting(
        "listeners",
        "",
        doc="The address of this worker's pages and metrics, such as http://127.0.0.1:8083. Empty: neither. "
        "An address that other machines can reach needs listeners.users.file.",
    )
    metrics_textfile: Path | None = setting(
        "metrics.textfile",
        None,
        doc="A file, such as /var/lib/node_exporter/tieline.prom, to which the metrics are written every "
        "progress.interval.ms for the node exporter's textfile collector. Every user of the machine can read "
        "it. Its folder must exist.",
    )
    offset_flush_interval_ms: int = setting(
        "offset.flush.interval.ms", 5000, ge=10, doc="How often offsets are committed (Kafka Connect: 60000)."
    )
    task_shutdown_graceful_timeout_ms: int = setting(
        "task.shutdown.graceful.timeout.ms",
        5000,
        ge=100,
        doc="The time that all tasks together have for a clean stop.",
    )
    offset_storage_topic: TopicName = setting(
        "offset.storage.topic",
        "tieline-offsets",
        min_length=1,
        doc="The compacted topic of source offsets on Kafka.",
    )
    offset_storage_partitions: int = setting(
        "offset.storage.partitions", 25, ge=1, le=10_000, doc="Partitions of offset.storage.topic."
    )
    offset_storage_replication_factor: int = setting(
        "offset.storage.replication.factor",
        -1,
        ge=-1,
        le=1_000,
        doc="Replication of offset.storage.topic. -1: the broker's default.",
    )
    log_retention_ms: int = setting(
        "log.retention.ms",
        604_800_000,
        ge=-1,
        doc="Local log: how long records are kept that every connector has read. -1: for ever.",
    )
    log_retention_bytes: int = setting(
        "log.retention.bytes",
        4 * 1024**3,
        ge=-1,
        doc="Local log: how many bytes a partition of a topic keeps of records that every connector "
        "has read. -1: no limit.",
    )
    log_format: Literal["json", "human"] = setting("log.format", "human", doc="How log lines look.")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = setting(
        "log.level", "INFO", doc="The lowest level that is logged."
    )
    progress_interval_ms: int = setting(
        "progress.interval.ms", 10_000, ge=100, doc="How often the ledger of every connector is logged."
    )

    def problems(self) -> list[tuple[str, str]]:
        """Return impossible addresses and numbers."""
        registry = "" if self.serves_registry else self.schema_registry_url
        problems = [
            *(("bootstrap.servers", server_problem(server)) for server in self.bootstrap_servers),
            ("schema.registry.url", registry and url_problem(registry)),
        ]
        if self.metrics_textfile is not None:
            problems.append(("metrics.textfile", _textfile_problem(self.metrics_textfile)))
        if self.offset_storage_replication_factor == 0:
            problems.append(("offset.storage.replication.factor", NO_COPIES))
        return [(key, problem) for key, problem in problems if problem]

    @property
    def serves_registry(self) -> bool:
        """Whether this worker serves its broker's schemas over HTTP."""
        return self.schema_registry_url == "embedded"

    @property
    def external_registry(self) -> str:
        """The URL of an external schema registry; empty if the broker's own topic is used."""
        return "" if self.serves_registry else self.schema_registry_url

    @property
    def timing(self) -> Timing:
        """How often and how long; every blocking call ends before the graceful timeout."""
        graceful = self.task_shutdown_graceful_timeout_ms / 1000
        return Timing(
            self.offset_flush_interval_ms / 1000, drain=graceful * 0.4, call_timeout=graceful * 0.25
        )


def _textfile_problem(path: Path) -> str:
    """Return why the node exporter would not read this file; empty if it would."""
    if path.suffix != ".prom":
        return f"{path} does not end in .prom: the node exporter reads no other files"
    if not path.parent.is_dir():
        return f"the folder {path.parent} does not exist. Create it, and let the worker's user write it"
    return ""


class ConnectorSettings(DeadLetterSettings, RestartSettings):
    """The settings of every connector; its own settings are in the same flat map."""

    name: str = setting(
        "name",
        doc="Unique in the worker.",
        pattern=r"^[A-Za-z0-9._-]{1,200}$",
        importance="high",
    )
    connector_class: str = setting(
        "connector.class",
        doc="The plugin's name.",
        importance="high",
    )
    tasks_max: int = setting(
        "tasks.max",
        1,
        ge=1,
        le=1000,
        doc="The largest number of tasks to split the work into.",
        importance="high",
    )
    key_converter: str | None = setting(
        "key.converter", None, doc="The converter for keys. A connector without one uses the worker's."
    )
    value_converter: str | None = setting(
        "value.converter", None, doc="The converter for values. A connector without one uses the worker's."
    )
    transforms: CommaList = setting(
        "transforms", (), doc="Names of transforms, in order; each has a transforms.NAME.type."
    )
    errors_retry_timeout: int = setting(
        "errors.retry.timeout",
        -1,
        ge=-1,
        doc="How long an outage is waited out, in ms; then the task fails. -1: without a limit (Kafka"
        " Connect: 0).",
    )
    errors_retry_delay_max_ms: int = setting(
        "errors.retry.delay.max.ms", 60_000, ge=1, doc="The longest backoff."
    )
    max_poll_records: int = setting(
        "max.poll.records", 2000, ge=1, le=100_000, doc="The largest number of records in one batch."
    )

    @property
    def policy(self) -> RetryPolicy:
        """How outages are waited out."""
        timeout = self.errors_retry_timeout
        return RetryPolicy(
            0.3, self.errors_retry_delay_max_ms / 1000, -1.0 if timeout < 0 else timeout / 1000
        )


class SourceSettings(ConnectorSettings):
    """The settings of every source."""

    topic_creation_default_partitions: int = setting(
        "topic.creation.default.partitions",
        -1,
        ge=-1,
        le=1_000_000,
        doc="Partitions of a new topic. -1: the broker's default.",
    )
    topic_creation_default_replication_factor: int = setting(
        "topic.creation.default.replication.factor",
        -1,
        ge=-1,
        le=1_000,
        doc="Replication of a new topic. -1: the broker's default.",
    )
    producer_in_flight_bytes: int = setting(
        "producer.in.flight.bytes",
        32 * 1024**2,
        ge=1024,
        le=1024**4,
        doc="The largest number of bytes that are sent and not yet acknowledged.",
    )
    spool_max_bytes: int = setting(
        "spool.max.bytes",
        1024**3,
        ge=64 * 1024,
        doc="Sources that cannot be re-read: the largest number of bytes that wait on disk "
        "(data.dir/spools).",
    )
    spool_full_policy: Literal["drop_oldest", "drop_newest"] = setting(
        "spool.full.policy",
        "drop_oldest",
        doc="What is dropped, counted and alarmed when the spool is full. There is no 'block': a "
        "subscriber that stops reading takes the platform down.",
    )
    quarantine_max_bytes: int = setting(
        "quarantine.max.bytes",
        16 * 1024**2,
        ge=0,
        doc="The largest number of bytes kept of input that could not be parsed.",
    )

    def problems(self) -> list[tuple[str, str]]:
        """Return settings of a new topic without partitions or replicas."""
        numbers = {
            "topic.creation.default.partitions": self.topic_creation_default_partitions,
            "topic.creation.default.replication.factor": self.topic_creation_default_replication_factor,
        }
        return [*super().problems(), *((key, NO_COPIES) for key, number in numbers.items() if number == 0)]


class SinkSettings(ConnectorSettings):
    """The settings of every sink."""

    topics: TopicNames = setting(
        "topics",
        (),
        doc="The topics to read, separated by commas. Either this or topics.regex.",
        importance="high",
    )
    topics_regex: str | None = setting(
        "topics.regex",
        None,
        doc="A regular expression: all topics whose whole name matches. It never matches an internal topic.",
    )

    @property
    def subscription(self) -> Subscription:
        """Either topics or a pattern; ``problems`` checks that."""
        return Subscription(self.topics, self.topics_regex)

    @property
    def reads(self) -> Subscription:
        """What the sink consumes: its subscription, and with dead letters also what is replayed to it."""
        topics, pattern = self.subscription
        if self.dead_letters is None:
            return Subscription(topics, pattern)
        return Subscription((*topics, replay_topic(self.name)), pattern)

    def problems(self) -> list[tuple[str, str]]:
        """Return problems of the topics: named in exactly one way, by an expression that compiles.

        The topic of dead letters cannot be one of them: each letter would be read, and might fail again.
        """
        problems = super().problems()
        if bool(self.topics) == (self.topics_regex is not None):
            return [*problems, ("topics", "give either topics or topics.regex")]
        try:
            re.compile(self.topics_regex or "")
        except re.error as error:
            return [*problems, ("topics.regex", f"not a regular expression: {error}")]
        if self.topics_regex == "":
            return [*problems, ("topics.regex", "is empty, and matches no topic; .* matches all")]
        dead = self.dead_letter_topic
        pattern = re.compile(self.topics_regex or "")
        if dead and (dead in self.topics or matches(pattern, dead, (), ())):
            return [*problems, ("errors.deadletterqueue.topic.name", f"{dead} {_READ_BY_ITSELF}")]
        return problems
