"""The format of records that no connector configures: Avro with a schema, JSON without one."""

from __future__ import annotations

from tieline.api import DataError, Datum, SchemaStore
from tieline.converters.avro import AvroConverter, AvroConverterConfig
from tieline.converters.json import JsonConverter, JsonConverterConfig


class DefaultCodec:
    """Encodes keys, or values; used by one thread at a time. ``avro``: for data with a schema."""

    def __init__(self, schemas: SchemaStore, *, is_key: bool = False) -> None:
        self.avro = AvroConverter(AvroConverterConfig.parse({}), is_key=is_key, schemas=schemas)
        self._json = JsonConverter(JsonConverterConfig.parse({}), is_key=is_key, schemas=schemas)

    def encode(self, datum: Datum) -> bytes | None:
        """Return the bytes of a datum.

        Raises ``ValueError`` if it does not fit its schema, ``RetriableError`` if schemas are unavailable.
        """
        converter = self._json if datum.schema is None else self.avro
        try:
            return converter.serialize([datum])[0]
        except DataError as error:
            raise ValueError(str(error.failures[0])) from error
