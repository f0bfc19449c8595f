"""Converters translate between data with a schema and the bytes in a topic."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Generic, NamedTuple, Protocol, TypeVar

from tieline.api.config import Config
from tieline.api.schema import Schema

C = TypeVar("C", bound=Config)


class Datum(NamedTuple):
    """A key or a value of a record of ``topic``, with its schema, or ``None``."""

    topic: str
    data: Any
    schema: Schema | None = None


class Encoded(NamedTuple):
    """A key or a value of a record of ``topic`` as bytes; ``None`` is Kafka's null (a tombstone)."""

    topic: str
    data: bytes | None


class SchemaStore(Protocol):
    """Assigns ids to schemas: the ``_schemas`` topic or another registry. Thread-safe."""

    def register(self, subject: str, schema: Schema) -> int:
        """Return the schema's id under this subject; register it if it is new.

        Raises ``RetriableError`` while the store is unavailable, and never ``DataError``.
        """

    def schema(self, schema_id: int) -> Schema | None:
        """Return the schema of an id, or ``None`` if it does not exist. Raises ``RetriableError``."""


class Converter(ABC, Generic[C]):
    """Converts between data and bytes, a batch at a time.

    1. ``Converter(config, is_key=…, schemas=…)``: before any batch.
    2. ``serialize`` on the source side, ``deserialize`` on the sink side, from the task's own thread.
    3. ``stop()``, last: release all resources.

    Both keep the order and the length of the batch. They raise ``DataError`` with an index → cause map for
    data that can never be converted, and ``RetriableError`` if the schema store is unavailable. ``None``
    stays ``None``.
    """

    config_type: ClassVar[type[Config]] = Config

    def __init__(self, config: C, *, is_key: bool, schemas: SchemaStore) -> None:
        self.config = config
        self.is_key = is_key
        self.schemas = schemas

    @abstractmethod
    def serialize(self, batch: Sequence[Datum]) -> list[bytes | None]:
        """Convert data to bytes."""

    @abstractmethod
    def deserialize(self, batch: Sequence[Encoded]) -> list[Datum]:
        """Convert bytes to data."""

    def stop(self) -> None:
        """Release all resources. Always the last call."""
