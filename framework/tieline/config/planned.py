"""A checked configuration: one worker and its connectors, ready to start."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from tieline.api import Config, Converter, SinkConnector, SourceConnector, Transform
from tieline.broker.backend import Backend
from tieline.config.listener import WorkerListener
from tieline.config.settings import SinkSettings, SourceSettings, WorkerSettings
from tieline.registry.http.server import RegistryConfig


@dataclass(frozen=True)
class ConverterPlan:
    """A converter's class and its settings, for keys or for values."""

    type: type[Converter[Any]]
    config: Config
    registry: Mapping[str, str]
    """Settings of an external schema registry (``url`` and its client's); empty: the topic ``_schemas``."""


@dataclass(frozen=True)
class TransformPlan:
    """A transform's class and its settings."""

    type: type[Transform[Any]]
    config: Config


@dataclass(frozen=True)
class ConnectorParts:
    """What a source and a sink have alike."""

    config: Config
    """The connector's own settings."""
    connector_settings: Mapping[str, str]
    """The same as a flat map."""
    key: ConverterPlan
    value: ConverterPlan
    transforms: Sequence[TransformPlan]
    overrides: Mapping[str, str]
    """``producer.override.*`` of a source, ``consumer.override.*`` of a sink."""


@dataclass(frozen=True)
class SourcePlan(ConnectorParts):
    """One source, checked and ready to start."""

    settings: SourceSettings
    connector: type[SourceConnector[Any]]

    @property
    def name(self) -> str:
        """The connector's name."""
        return self.settings.name


@dataclass(frozen=True)
class SinkPlan(ConnectorParts):
    """One sink, checked and ready to start."""

    settings: SinkSettings
    connector: type[SinkConnector[Any]]
    producer_overrides: Mapping[str, str] = field(default_factory=dict)
    """``producer.override.*``, for the records that the sink's task writes with its offsets."""

    @property
    def name(self) -> str:
        """The connector's name."""
        return self.settings.name


ConnectorPlan: TypeAlias = SourcePlan | SinkPlan


@dataclass(frozen=True)
class Plan:
    """One worker and its connectors, checked."""

    worker: WorkerSettings
    clients: Mapping[str, str]
    """Worker settings that Kafka's clients get unchanged (TLS, SASL)."""
    connectors: Sequence[ConnectorPlan]
    ignored: Mapping[str, str]
    """Settings of Kafka Connect that have no effect here, and why."""
    secrets: Sequence[str]
    registry: RegistryConfig | None = None
    """How this worker serves its broker's schemas over HTTP; ``None`` if it does not."""
    external_registry: Mapping[str, str] = field(default_factory=dict)
    """The client settings of the worker's external schema registry; empty: the topic ``_schemas``."""
    listener: WorkerListener | None = None
    """Where this worker serves its pages; ``None`` if it does not."""

    @property
    def backend(self) -> Backend:
        """The broker that the worker's settings name."""
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
