"""One schema's Avro binary, without any framing: what the converter and the spool write."""

from __future__ import annotations

import functools
import io
from collections.abc import Iterator
from typing import Any

import fastavro
import fastavro._read_py
from fastavro.io.binary_decoder import BinaryDecoder

from tieline.api import Schema
from tieline.converters.logical import for_fastavro
from tieline.converters.union import Tagger, compile_tagger

MAX_ITEMS = 100_000
"""Of the arrays in one datum, where items take no bytes and so nothing else bounds their number."""


class AvroBytes(bytes):
    """A value that is Avro binary of its schema already; ``AvroConverter.serialize`` writes it unchanged."""


class AvroCodec:
    """Plain data to Avro binary and back, for one schema (Avro 1.11 specification, "Binary encoding").

    Hostile bytes cost no more than their length: a record inside itself is read by fastavro's Python
    code, whose recursion Python bounds (some hundred levels; the compiled one overflows the C stack and
    takes the process down), and so are arrays whose items take no bytes (null, say), up to ``MAX_ITEMS``.
    What is read keeps the types of Python where these can hold it, see ``logical``. Raises ``ValueError``
    on a schema that cannot be used.
    """

    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        try:
            self._readable = for_fastavro(schema.definition)
            hazards = _Hazards(self._readable)
        except Exception as error:  # not all that fastavro lets pass is a schema
            raise ValueError(f"{schema.name} is no usable schema: {type(error).__name__}: {error}") from error
        self._read = (
            _read_bounded
            if hazards.unbounded
            else fastavro._read_py.schemaless_reader
            if hazards.recursive
            else fastavro.schemaless_reader
        )

    @staticmethod
    @functools.lru_cache(maxsize=1024)
    def of(schema: Schema) -> AvroCodec:
        """The codec of a schema; compiled once."""
        return AvroCodec(schema)

    @functools.cached_property
    def _tag(self) -> Tagger:
        """Only where something is written: reading needs less of a schema."""
        try:
            return compile_tagger(self.schema.parsed)
        except Exception as error:
            told = f"{self.schema.name} is no usable schema: {type(error).__name__}: {error}"
            raise ValueError(told) from error

    def encode(self, data: Any) -> bytes:
        """Raises ``ValueError`` where the data is not true to the schema, with the place."""
        out = io.BytesIO()
        try:
            fastavro.schemaless_writer(out, self.schema.parsed, self._tag(data))
        except (TypeError, KeyError, AttributeError, ArithmeticError, LookupError, RecursionError) as error:
            raise ValueError(f"not true to {self.schema.name}: {type(error).__name__}: {error}") from error
        return out.getvalue()

    def decode(self, data: bytes, start: int = 0, reader: Schema | None = None) -> Any:
        """Raises ``ValueError`` on bytes that are no such datum, or more than one.

        ``reader``: a later schema of the same data, whose new fields get their defaults.
        """
        source = io.BytesIO(data)
        source.seek(start)
        try:
            value = self._read(source, self._readable, None if reader is None else reader.parsed)
        except Exception as error:  # hostile bytes make fastavro raise whatever its code meets first
            raise ValueError(f"no {self.schema.name}: {type(error).__name__}: {error}") from error
        if source.tell() != len(data):
            raise ValueError(f"no {self.schema.name}: {len(data) - source.tell()} bytes left over")
        return value


def _read_bounded(source: io.BytesIO, schema: Any, reader: Any) -> Any:
    named: dict[str, Any] = {"writer": {}, "reader": {}}
    writer = fastavro.parse_schema(schema, named["writer"])
    if reader is not None:
        reader = fastavro.parse_schema(reader, named["reader"])
    return fastavro._read_py.read_data(_Bounded(source), writer, named, reader, {})  # type: ignore[no-untyped-call]


class _Bounded(BinaryDecoder):
    """Reads ``MAX_ITEMS`` items of arrays, and raises ``ValueError`` at the next."""

    def __init__(self, source: io.BytesIO) -> None:
        super().__init__(source)  # type: ignore[no-untyped-call]
        self._left = MAX_ITEMS

    def iter_array(self) -> Iterator[None]:
        """As its own, but bounded."""
        for item in super().iter_array():  # type: ignore[no-untyped-call]
            self._left -= 1
            if self._left < 0:
                raise ValueError(f"more than {MAX_ITEMS} items of arrays whose items take no bytes")
            yield item


class _Hazards:
    """What makes a schema dangerous to read: ``recursive``, and ``unbounded`` arrays."""

    def __init__(self, parsed: Any) -> None:
        self.recursive = False
        self.unbounded = False
        self._takes_no_bytes: dict[str, bool | None] = {}
        self._visit(parsed)

    def _visit(self, schema: Any) -> bool:
        """Whether a value of this schema can take no bytes at all."""
        if isinstance(schema, list):
            for branch in schema:
                self._visit(branch)
            return False
        if isinstance(schema, str):
            known = self._takes_no_bytes.get(schema, schema == "null")
            self.recursive |= known is None
            return bool(known)
        kind = schema["type"]
        if kind in ("record", "error"):
            name = schema["name"]
            self._takes_no_bytes[name] = None  # until its end: whoever meets it now is inside it
            fields = [self._visit(field["type"]) for field in schema["fields"]]
            self._takes_no_bytes[name] = all(fields)
            return all(fields)
        if kind == "array":
            self.unbounded |= self._visit(schema["items"])
            return False
        if kind == "map":
            self._visit(schema["values"])
            return False
        if kind == "fixed":
            self._takes_no_bytes[schema["name"]] = schema["size"] == 0
            return bool(schema["size"] == 0)
        return self._visit(kind) if kind != "enum" else False
