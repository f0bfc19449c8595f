"""The ``avro`` converter for Confluent's wire format: 0x00, the schema's id in 4 bytes, Avro binary.

The subject of a type with a namespace is its full name (Confluent's RecordNameStrategy). One topic may thus
have several formats, each with its own owner and history. The subject of other types (unions, arrays, maps,
primitives) is ``<topic>-key`` or ``<topic>-value``.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable, Sequence
from typing import Any

from tieline.api import Config, Converter, DataError, Datum, Encoded, Schema, SchemaStore, setting
from tieline.converters.codec import AvroBytes, AvroCodec

_FRAME = struct.Struct(">bI")
_PRIMITIVES = {str: '"string"', bool: '"boolean"', int: '"long"', float: '"double"', bytes: '"bytes"'}


def framed_schema_id(data: bytes) -> int | None:
    """Return the id in the frame of Confluent's wire format; ``None`` if the data does not begin with one."""
    if len(data) < _FRAME.size or data[0] != 0:
        return None
    schema_id: int = _FRAME.unpack_from(data)[1]
    return schema_id


class AvroConverterConfig(Config):
    """Settings of the converter. The runtime reads ``schema.registry.url`` to choose the schema store."""

    schema_registry_url: str = setting(
        "schema.registry.url",
        "",
        doc="A schema registry for this converter alone. Empty: the worker's, or the topic _schemas "
        "of the broker.",
    )


class AvroConverter(Converter[AvroConverterConfig]):
    """Converts data with a schema to Avro with the schema's id; without a schema only primitives and null."""

    config_type = AvroConverterConfig

    def __init__(self, config: AvroConverterConfig, *, is_key: bool, schemas: SchemaStore) -> None:
        super().__init__(config, is_key=is_key, schemas=schemas)
        self._suffix = "key" if is_key else "value"
        self._writers: dict[tuple[str, Schema], tuple[bytes, Callable[[Any], bytes]]] = {}
        self._readers: dict[int, AvroCodec] = {}

    def serialize(self, batch: Sequence[Datum]) -> list[bytes | None]:
        """Encode a batch, and register new schemas. Raises ``DataError``, ``RetriableError``."""
        encoded: list[bytes | None] = []
        failures: dict[int, Exception] = {}
        for index, (topic, data, schema) in enumerate(batch):
            if data is None and schema is None:
                encoded.append(None)
                continue
            try:
                frame, encode = self._writer(topic, schema or _schema_of(data))
                encoded.append(frame + (data if type(data) is AvroBytes else encode(data)))
            except ValueError as error:
                failures[index] = error
                encoded.append(None)
        if failures:
            raise DataError(failures)
        return encoded

    def deserialize(self, batch: Sequence[Encoded]) -> list[Datum]:
        """Decode a batch with the writer's schema. Raises ``DataError``, ``RetriableError``."""
        out: list[Datum] = []
        failures: dict[int, Exception] = {}
        for index, (topic, data) in enumerate(batch):
            if not data:  # some producers cannot write Kafka's null and write an empty value
                out.append(Datum(topic, None))
                continue
            try:
                codec = self._reader(data)
                out.append(Datum(topic, codec.decode(data, _FRAME.size), codec.schema))
            except ValueError as error:
                failures[index] = error
        if failures:
            raise DataError(failures)
        return out

    def read_as(self, data: bytes, schema: Schema) -> Any:
        """Return a value that was written with this or an earlier schema.

        Raises ``ValueError`` or ``RetriableError``.
        """
        codec = self._reader(data)
        return codec.decode(data, _FRAME.size, None if _same(codec.schema, schema) else schema)

    def _writer(self, topic: str, schema: Schema) -> tuple[bytes, Callable[[Any], bytes]]:
        writer = self._writers.get((topic, schema))
        if writer is None:
            subject = schema.name if "." in schema.name else f"{topic}-{self._suffix}"
            schema_id = self.schemas.register(subject, schema)
            writer = self._writers[topic, schema] = _FRAME.pack(0, schema_id), AvroCodec.of(schema).encode
        return writer

    def _reader(self, data: bytes) -> AvroCodec:
        schema_id = framed_schema_id(data)
        if schema_id is None:
            raise ValueError(
                "not in Confluent's wire format (0x00, schema id, Avro); was it written by another converter?"
            )
        codec = self._readers.get(schema_id)
        if codec is None:
            schema = self.schemas.schema(schema_id)
            if schema is None:
                raise ValueError(f"no schema has the id {schema_id}; was it written with another registry?")
            codec = self._readers[schema_id] = AvroCodec.of(schema)
        return codec


@functools.lru_cache(maxsize=256)
def _same(first: Schema, second: Schema) -> bool:
    """Return whether two schemas are the same, even if a registry returns another text."""
    return first == second or bool(first.parsed == second.parsed)


def _schema_of(data: Any) -> Schema:
    text = _PRIMITIVES.get(type(data))
    if text is None:
        raise ValueError(
            f"a {type(data).__name__} without a schema cannot be Avro; give it a schema or use json"
        )
    return Schema.parse(text)
