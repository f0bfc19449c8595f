"""An open broker with its schemas."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

from tieline.api import SchemaStore
from tieline.broker.port import Broker
from tieline.broker.records import TopicInfo
from tieline.registry.client import RemoteSchemaStore
from tieline.registry.schema_topic import TopicSchemaStore


class BrokerSession:
    """An open broker with its schemas. ``name`` is what messages call the broker."""

    def __init__(self, broker: Broker, name: str, registry: Mapping[str, str]) -> None:
        self.broker = broker
        self.name = name
        self._registry = registry

    @cached_property
    def registry(self) -> RemoteSchemaStore | None:
        """The external schema registry, or ``None`` if the worker's values do not use one."""
        return RemoteSchemaStore(self._registry) if self._registry else None

    @cached_property
    def schemas(self) -> SchemaStore:
        """The store that gives a schema its id."""
        return self.registry or TopicSchemaStore(self.broker)

    def topic(self, name: str, timeout: float = 10.0) -> TopicInfo | None:
        """Return the topic, or ``None`` if it does not exist. Raises ``RetriableError``."""
        return self.broker.topics(timeout).get(name)

    def close(self) -> None:
        """Close the broker and the registry's connections."""
        if "registry" in self.__dict__ and self.registry is not None:
            self.registry.close()
        self.broker.close()
