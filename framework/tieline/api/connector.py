"""Connectors: check the configuration and split the work into tasks."""

from __future__ import annotations

from abc import ABC
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Generic, Literal, Protocol, TypeVar, get_args

from tieline.api.config import Config
from tieline.api.metrics import ConnectorMetric
from tieline.api.record import Position
from tieline.api.sink import SinkTask
from tieline.api.source import SourceTask

C = TypeVar("C", bound=Config)


class ConnectorContext(Protocol):
    """What the runtime offers a connector."""

    @property
    def name(self) -> str:
        """The connector's name."""

    @property
    def settings(self) -> Mapping[str, str]:
        """The connector's settings as a flat map of strings, from which task settings are created."""

    def request_task_reconfiguration(self) -> None:
        """Reserved: ask for ``task_configs`` to be called again, and changed tasks to be restarted."""

    def raise_error(self, error: Exception) -> None:
        """Report an error from another thread; the connector fails."""


class Connector(ABC, Generic[C]):
    """One use of a plugin, with a name and a configuration. The calls, in order:

    1. ``Connector.validate(config)`` before anything starts, on the class: all problems that
       ``config_type`` cannot find, for example in a file.
    2. ``Connector(context, config)``, then ``start()``.
    3. ``task_configs(max_tasks)``: a flat map of settings for each task, at most ``tasks.max`` of them.
    4. ``stop()``, last, after the tasks have stopped.

    Reserved, not called yet: ``reconfigure(config)`` when the configuration has changed, and
    ``alter_offsets(config, offsets)`` before new offsets are stored for a stopped connector.
    """

    version: ClassVar[str] = "0"
    config_type: ClassVar[type[Config]] = Config
    metrics: ClassVar[Sequence[ConnectorMetric]] = ()
    """What the worker exports for Prometheus of what the tasks count and measure."""

    def __init__(self, context: ConnectorContext, config: C) -> None:
        self.context = context
        self.config = config

    @classmethod
    def validate(cls, config: C) -> list[tuple[str, str]]:
        """Return ``(key, problem and fix)`` for every problem. Called before any instance exists."""
        return []

    def start(self) -> None:
        """Prepare the connector. Called once, before ``task_configs``."""

    def task_configs(self, max_tasks: int) -> Sequence[Mapping[str, str]]:
        """Return the settings of each task; at most ``max_tasks``."""
        return [self.context.settings]

    def reconfigure(self, config: C) -> None:
        """Reserved: the configuration changed while running. The default stops and starts."""
        self.stop()
        self.config = config
        self.start()

    def alter_offsets(self, config: C, offsets: Mapping[Any, Position | None]) -> bool:
        """Reserved: check offsets that an operator wants to set; true if this connector can verify them."""
        return False

    def stop(self) -> None:
        """Release all resources. Called once, after the tasks have stopped."""


class SourceConnector(Connector[C]):
    """A connector whose tasks read from an external system; one task unless ``task_configs`` returns more."""

    task_type: ClassVar[type[SourceTask[Any]]]

    def exactly_once_support(self, config: C) -> Literal["supported", "unsupported", "unknown"]:
        """Reserved: whether offsets and records can be one transaction without duplicates (KIP-618)."""
        return "unknown"


class SinkConnector(Connector[C]):
    """A connector whose tasks write to an external system; ``tasks.max`` equal tasks share the partitions."""

    task_type: ClassVar[type[SinkTask[Any]]]

    answers_records: ClassVar[bool] = False
    """Whether each record is answered, as a command is: then none becomes a dead letter or is replayed."""

    def task_configs(self, max_tasks: int) -> Sequence[Mapping[str, str]]:
        """Return equal tasks; the consumer group divides the partitions among them."""
        return [self.context.settings] * max_tasks


def connector_of(task: type[SourceTask[Any]] | type[SinkTask[Any]]) -> type[Connector[Any]]:
    """Return a connector for a task class that has none of its own: the runtime calls it for an entry point.

    Its settings are the type parameter of the task (``class Counter(SourceTask[CounterConfig])``), its
    documentation is the task's. Raises ``TypeError`` if the task names no settings class.
    """
    config = next((kind for base in task.__mro__ for kind in _configs_of(base)), None)
    if config is None:
        kind = "SinkTask" if issubclass(task, SinkTask) else "SourceTask"
        raise TypeError(f"{task.__name__} names no settings: write class {task.__name__}({kind}[MyConfig])")
    base: type[Connector[Any]] = SinkConnector if issubclass(task, SinkTask) else SourceConnector
    attributes = {
        "config_type": config,
        "task_type": task,
        "__doc__": task.__doc__,
        "__module__": task.__module__,
    }
    return type(task.__name__, (base,), attributes)


def _configs_of(base: type) -> list[type[Config]]:
    generics = base.__dict__.get("__orig_bases__", ())
    arguments = [argument for generic in generics for argument in get_args(generic)]
    return [kind for kind in arguments if isinstance(kind, type) and issubclass(kind, Config)]
