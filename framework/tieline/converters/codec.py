"""One schema's Avro binary, without any framing: what the converter and the spool write."""

from __future__ import annotations

import functools
import io
from typing import Any

import fastavro

from tieline.api import Schema
from tieline.converters.union import compile_tagger


class AvroCodec:
    """Plain data to Avro binary and back, for one schema (Avro 1.11 specification, "Binary encoding")."""

    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        self._tag = compile_tagger(schema.parsed)

    @staticmethod
    @functools.lru_cache(maxsize=1024)
    def of(schema: Schema) -> AvroCodec:
        """The codec of a schema; compiled once."""
        return AvroCodec(schema)

    def encode(self, data: Any) -> bytes:
        """Raises ``ValueError`` where the data is not true to the schema, with the place."""
        out = io.BytesIO()
        try:
            fastavro.schemaless_writer(
                out, self.schema.parsed, data if self._tag is None else self._tag(data)
            )
        except (TypeError, KeyError, AttributeError, OverflowError, IndexError, EOFError) as error:
            raise ValueError(f"not true to {self.schema.name}: {type(error).__name__}: {error}") from error
        return out.getvalue()

    def decode(self, data: bytes, start: int = 0) -> Any:
        """Raises ``ValueError`` on bytes that are no such datum, or more than one."""
        source = io.BytesIO(data)
        source.seek(start)
        try:
            value = fastavro.schemaless_reader(source, self.schema.parsed, None)
        except Exception as error:  # hostile bytes make fastavro raise whatever its C code meets first
            raise ValueError(f"no {self.schema.name}: {type(error).__name__}: {error}") from error
        if source.tell() != len(data):
            raise ValueError(f"no {self.schema.name}: {len(data) - source.tell()} bytes left over")
        return value
