"""How a source record is stored in the spool: one short line of JSON, then the key, then the value.

A value with a schema is Avro of that schema, which the spool stores once under a number. Bytes stay bytes,
text is UTF-8, and anything else JSON. A record that is read is equal to the one that was written.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from tieline.api import Headers, Schema, SourceRecord, parse_json
from tieline.converters.codec import AvroBytes, AvroCodec

MAX_DEPTH = 100
"""How deep JSON may nest. It must be readable from any thread, however full its stack is."""

_dump = json.JSONEncoder(separators=(",", ":")).encode


class SpoolCodec:
    """Encodes and decodes the records of a spool.

    ``number_of`` stores a schema and returns its number, ``schema_of`` finds it by the number. ``as_avro``:
    values that have a schema are read as ``AvroBytes``, for a converter that writes them so.
    """

    def __init__(
        self,
        number_of: Callable[[Schema], int],
        schema_of: Callable[[int], Schema],
        *,
        as_avro: bool = False,
    ) -> None:
        self._number_of = number_of
        self._schema_of = schema_of
        self._as_avro = as_avro

    def encode(self, record: SourceRecord) -> bytes:
        """Encode a record without its headers, which the log stores beside it. Raises ``ValueError``."""
        key_kind, key = self._datum(record.key, record.key_schema)
        value_kind, value = self._datum(record.value, record.value_schema)
        line = _dump([record.topic, record.partition, record.timestamp, key_kind, value_kind, len(key)])
        return b"%b\n%b%b" % (line.encode(), key, value)

    def decode(self, data: bytes, headers: Headers) -> SourceRecord:
        """Decode a record; its source partition and offset are replaced by its position in the spool."""
        end = data.index(b"\n")
        topic, partition, timestamp, key_kind, value_kind, key_length = parse_json(data[:end])
        start = end + 1 + key_length
        key, key_schema = self._data(key_kind, data[end + 1 : start])
        value, value_schema = self._data(value_kind, data[start:], as_avro=self._as_avro)
        return SourceRecord(
            topic,
            value,
            key,
            headers=headers,
            timestamp=timestamp,
            partition=partition,
            value_schema=value_schema,
            key_schema=key_schema,
        )

    def _datum(self, data: Any, schema: Schema | None) -> tuple[str | int, bytes]:
        if schema is not None:
            return self._number_of(schema), AvroCodec.of(schema).encode(data)
        if data is None:
            return "null", b""
        if isinstance(data, bytes):
            return "bytes", data
        if isinstance(data, str):
            return "text", data.encode("utf-8", "surrogatepass")
        try:
            text = _dump(data)
        except (TypeError, ValueError, RecursionError) as error:
            raise ValueError(f"without a schema it must be JSON, text or bytes: {error}") from error
        if text.count("[") + text.count("{") > MAX_DEPTH and _depth(data) > MAX_DEPTH:
            raise ValueError(f"without a schema it must be JSON nested no deeper than {MAX_DEPTH}")
        return "json", text.encode()

    def _data(self, kind: str | int, data: bytes, *, as_avro: bool = False) -> tuple[Any, Schema | None]:
        if isinstance(kind, int):
            schema = self._schema_of(kind)
            return AvroBytes(data) if as_avro else AvroCodec.of(schema).decode(data), schema
        if kind == "null":
            return None, None
        if kind == "bytes":
            return data, None
        return (data.decode("utf-8", "surrogatepass") if kind == "text" else parse_json(data)), None


def _depth(data: Any) -> int:
    """Return how deep lists and maps nest, without recursion."""
    depth, level = 0, [data]
    while level:
        containers = [item for item in level if isinstance(item, (dict, list, tuple))]
        level = [x for item in containers for x in (item.values() if isinstance(item, dict) else item)]
        depth += bool(containers)
    return depth
