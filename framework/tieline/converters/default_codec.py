"""The form of records that no connector's configuration speaks of: with a schema Avro, without one JSON."""

from __future__ import annotations

from tieline.api import DataError, Datum, SchemaStore
from tieline.converters.avro import AvroConverter, AvroConverterConfig
from tieline.converters.json import JsonConverter, JsonConverterConfig


class DefaultCodec:
    """For keys or for values; used by one thread at a time. ``avro``: its converter."""

    def __init__(self, schemas: SchemaStore, *, is_key: bool = False) -> None:
        self.avro = AvroConverter(AvroConverterConfig.parse({}), is_key=is_key, schemas=schemas)
        self._json = JsonConverter(JsonConverterConfig.parse({}), is_key=is_key, schemas=schemas)

    def encode(self, datum: Datum) -> bytes | None:
        """Raises ``ValueError`` on what is not true to its schema, ``Retriable`` (the schemas are away)."""
        converter = self._json if datum.schema is None else self.avro
        try:
            return converter.serialize([datum])[0]
        except DataError as error:
            raise ValueError(str(error.failures[0])) from error
