"""Connectors: read the configuration, say how the work is split into tasks."""

from __future__ import annotations

from abc import ABC
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Generic, Literal, Protocol, TypeVar

from tieline.api.config import Config
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
        """The connector's own settings as a flat map of strings: what a task configuration is made of."""

    def request_task_reconfiguration(self) -> None:
        """Ask the runtime to call ``task_configs`` again and to restart the tasks if they differ."""

    def raise_error(self, error: Exception) -> None:
        """Report an error from a thread of the connector's own; the connector fails."""


class Connector(ABC, Generic[C]):
    """One use of a plugin, with a name and a configuration. In calling order:

    1. ``validate(config)`` before anything starts: the problems that ``config_type`` alone cannot see
       (something has to be looked up, say); all of them together.
    2. ``start(context, config)``
    3. ``task_configs(max_tasks)``: a flat map of settings a task, at most ``tasks.max`` of them.
    4. ``reconfigure(config)`` when the configuration has changed (as it stands: stop, then start).
    5. ``alter_offsets(config, offsets)`` while stopped, before somebody's new offsets are stored.
    6. ``stop()``

    ``task_type`` is instantiated by the runtime without arguments, once a task.
    """

    version: ClassVar[str] = "0"
    config_type: ClassVar[type[Config]] = Config
    context: ConnectorContext

    def validate(self, config: C) -> list[tuple[str, str]]:
        """``(key, what is wrong and the way out)``, all of them. Called before ``start``."""
        return []

    def start(self, context: ConnectorContext, config: C) -> None:
        """Called once before ``task_configs``; override, and call this one first."""
        self.context = context

    def task_configs(self, max_tasks: int) -> Sequence[Mapping[str, str]]:
        """The settings of each task; at most ``max_tasks``."""
        return [self.context.settings]

    def reconfigure(self, config: C) -> None:
        """The configuration changed while running."""
        self.stop()
        self.start(self.context, config)

    def alter_offsets(self, config: C, offsets: Mapping[Any, Position | None]) -> bool:
        """Check offsets that somebody wants to set; true if this connector knows that they are right."""
        return False

    def stop(self) -> None:
        """Called once, after the tasks have stopped."""


class SourceConnector(Connector[C]):
    """A connector whose tasks read from outside; one task unless ``task_configs`` says otherwise."""

    task_type: ClassVar[type[SourceTask[Any]]]

    def exactly_once_support(self, config: C) -> Literal["supported", "unsupported", "unknown"]:
        """Whether offsets and records can be one transaction without duplicates (KIP-618)."""
        return "unknown"


class SinkConnector(Connector[C]):
    """A connector whose tasks write outside; ``tasks.max`` equal tasks share the partitions."""

    task_type: ClassVar[type[SinkTask[Any]]]

    def task_configs(self, max_tasks: int) -> Sequence[Mapping[str, str]]:
        """Equal tasks: the consumer group divides the partitions among them."""
        return [self.context.settings] * max_tasks
