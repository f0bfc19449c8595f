"""Converters: between data with a schema and the bytes that a topic carries."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Generic, NamedTuple, Protocol, TypeVar

from tieline.api.config import Config
from tieline.api.schema import Schema

C = TypeVar("C", bound=Config)


class Datum(NamedTuple):
    """A key or a value of a record of ``topic``, with the schema it is true to, or none."""

    topic: str
    data: Any
    schema: Schema | None = None


class Encoded(NamedTuple):
    """A key or a value of a record of ``topic`` as bytes; none is Kafka's null (a tombstone)."""

    topic: str
    data: bytes | None


class SchemaStore(Protocol):
    """Where schemas have ids: the ``_schemas`` topic, or a registry elsewhere. Safe for many threads."""

    def register(self, subject: str, schema: Schema) -> int:
        """The schema's id under this subject, registering it if it is new.

        Raises ``Retriable`` while the store is unavailable, ``DataError`` never.
        """

    def schema(self, schema_id: int) -> Schema | None:
        """The schema of this id, or none if there is none. Raises ``Retriable``."""


class Converter(ABC, Generic[C]):
    """Between data and bytes, a batch at a time.

    1. ``start(config, is_key, schemas)``: once, before any batch.
    2. ``serialize`` on the source side, ``deserialize`` on the sink side, from the task's own thread.

    Both keep the order and the length of the batch, and raise ``DataError(index → cause)`` for what
    can never be converted, ``Retriable`` when a schema store is unavailable. ``None`` stays ``None``.
    """

    config_type: ClassVar[type[Config]] = Config

    def start(self, config: C, *, is_key: bool, schemas: SchemaStore) -> None:
        """Called once, before any batch."""

    @abstractmethod
    def serialize(self, batch: Sequence[Datum]) -> list[bytes | None]:
        """Data to bytes."""

    @abstractmethod
    def deserialize(self, batch: Sequence[Encoded]) -> list[Datum]:
        """Bytes to data."""
