"""Which broker a worker's settings mean, and how it is opened: Kafka and the local log meet only here."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tieline.api import ConfigProblem
from tieline.broker.kafka import settings as kafka
from tieline.broker.local.file import LogSettings
from tieline.broker.local.log import LocalLog
from tieline.broker.port import Broker


@dataclass(frozen=True)
class Backend:
    """The broker of a worker, not yet opened: Kafka if it has bootstrap servers, else the local log."""

    data_dir: Path
    """The folder of the local log."""
    bootstrap_servers: str = ""
    """Kafka's brokers, ``host:port`` with commas; empty for the local log."""
    clients: Mapping[str, str] = field(default_factory=dict)
    """Settings of every client of Kafka (TLS, SASL)."""
    offsets_topic: str = ""
    """Kafka's topic for the offsets of sources; empty if none are read or saved."""
    offsets_partitions: int = 25
    offsets_replication: int = -1
    call_timeout: float = 10.0
    """Seconds after which a call to Kafka gives up, whatever time-out it is given."""
    retention_ms: int = LogSettings.retention_ms
    """Of the local log; -1 is without a limit."""
    retention_bytes: int = LogSettings.retention_bytes
    """Of each partition of the local log; -1 is without a limit."""

    @property
    def name(self) -> str:
        """What messages call this backend."""
        if self.bootstrap_servers:
            return f"Kafka at {self.bootstrap_servers}"
        return f"the local log in {self.data_dir.absolute()}"

    @property
    def is_missing(self) -> bool:
        """Whether this is a local log that no worker has created yet."""
        return not self.bootstrap_servers and not (self.data_dir / "log.db").exists()

    def open(self, *, owner: bool = True) -> Broker:
        """Open the broker. Kafka's brokers need not be available; a missing local log is created.

        ``owner``: own the local log, so that no other process can. Raises ``DataDirInUseError``,
        ``StartupError``, and ``ConfigError`` for settings that Kafka's clients reject.
        """
        if not self.bootstrap_servers:
            settings = LogSettings(retention_ms=self.retention_ms, retention_bytes=self.retention_bytes)
            return LocalLog.open(self.data_dir, owner=owner, settings=settings)
        from tieline.broker.kafka.broker import KafkaBroker  # loads librdkafka: only where it is used

        return KafkaBroker(
            self.bootstrap_servers,
            self.clients,
            offsets_topic=self.offsets_topic,
            offsets_partitions=self.offsets_partitions,
            offsets_replication=self.offsets_replication,
            call_timeout=self.call_timeout,
        )


def client_problems(
    clients: Mapping[str, str],
    *,
    producer: Mapping[str, str] | None = None,
    consumer: Mapping[str, str] | None = None,
) -> list[ConfigProblem]:
    """Return every problem of the settings of Kafka's clients, found without a connection.

    ``clients``: the worker's settings for every client. ``producer``, ``consumer``: a connector's overrides
    for one of the two. ``where`` of a problem is left to the caller; the key of an override has its prefix.
    """
    return kafka.problems(clients, producer=producer, consumer=consumer)


def silence_clients() -> None:
    """Keep the log lines of Kafka's clients off the terminal; exceptions report what matters.

    The lines are still examined for what they may mean: see ``tieline.broker.kafka.handshake``.
    """
    kafka.log.setLevel(logging.INFO)
    kafka.log.propagate = False
    if not kafka.log.handlers:
        kafka.log.addHandler(logging.NullHandler())
