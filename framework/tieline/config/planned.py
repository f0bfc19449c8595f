"""What was read and checked: one worker and its connectors, ready to start."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tieline.api import Config, Connector, Converter, Transform
from tieline.broker.backend import Backend
from tieline.config.settings import ConnectorSettings, WorkerSettings
from tieline.registry.http.server import RegistryConfig


@dataclass(frozen=True)
class ConverterPlan:
    """A converter's class and its settings, for keys or for values."""

    type: type[Converter[Any]]
    config: Config
    registry: Mapping[str, str]
    """Settings of a schema registry elsewhere (``url`` and the client's); empty: the topic ``_schemas``."""


@dataclass(frozen=True)
class TransformPlan:
    """A transform's class and its settings."""

    type: type[Transform[Any]]
    config: Config


@dataclass(frozen=True)
class ConnectorPlan:
    """One connector, checked: ready to start."""

    settings: ConnectorSettings
    connector: type[Connector[Any]]
    config: Config
    own: Mapping[str, str]
    key: ConverterPlan
    value: ConverterPlan
    transforms: Sequence[TransformPlan]
    overrides: Mapping[str, str]
    """``producer.override.*`` of a source, ``consumer.override.*`` of a sink."""

    @property
    def name(self) -> str:
        """The connector's name."""
        return self.settings.name


@dataclass(frozen=True)
class Plan:
    """One worker and its connectors, checked."""

    worker: WorkerSettings
    clients: Mapping[str, str]
    """Worker settings that go to Kafka's clients as they are (TLS, SASL)."""
    connectors: Sequence[ConnectorPlan]
    ignored: Mapping[str, str]
    """Settings of Kafka Connect that mean nothing here, and why."""
    secrets: Sequence[str]
    registry: RegistryConfig | None = None
    """How this worker serves its broker's schemas over HTTP; ``None``: it does not."""

    @property
    def backend(self) -> Backend:
        """The broker that the worker's settings mean."""
        worker = self.worker
        return Backend(
            worker.data_dir,
            ",".join(worker.bootstrap_servers),
            self.clients,
            worker.offset_storage_topic,
            worker.offset_storage_partitions,
            worker.offset_storage_replication_factor,
            worker.timing.call_timeout,
            worker.log_retention_ms,
            worker.log_retention_bytes,
        )
