"""Encodes one schema's data as Avro binary without framing, for the converter and the spool."""

from __future__ import annotations

import functools
import io
from collections.abc import Iterator
from typing import Any

import fastavro
from fastavro import _read_py as python_reader  # fastavro has no public name for it
from fastavro.io.binary_decoder import BinaryDecoder

from tieline.api import Schema
from tieline.converters.logical import for_fastavro
from tieline.converters.union import Tagger, compile_tagger

MAX_ITEMS = 100_000
"""The limit for items of arrays in one datum whose items take no bytes, so that nothing else limits them."""


class AvroBytes(bytes):
    """A value that is already Avro binary of its schema; ``AvroConverter.serialize`` writes it unchanged."""


class AvroCodec:
    """Converts plain data to Avro binary and back for one schema (Avro 1.11, "Binary encoding").

    Hostile bytes cost no more than their length. Recursive records are read by fastavro's Python code, whose
    recursion Python limits to some hundred levels; the compiled code would overflow the C stack and crash the
    process. Arrays whose items take no bytes, such as null, are limited to ``MAX_ITEMS``. Values have
    Python's types if these can represent them (``logical``). Raises ``ValueError`` on an unusable schema.
    """

    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        try:
            self._readable = for_fastavro(schema.definition)
            hazards = _Hazards(self._readable)
        except Exception as error:  # fastavro accepts some invalid schemas at first
            raise ValueError(
                f"{schema.name} is not a usable schema: {type(error).__name__}: {error}"
            ) from error
        self._read = (
            _read_bounded
            if hazards.unbounded
            else python_reader.schemaless_reader
            if hazards.recursive
            else fastavro.schemaless_reader
        )

    @staticmethod
    @functools.lru_cache(maxsize=1024)
    def of(schema: Schema) -> AvroCodec:
        """Return the codec of a schema, which is compiled once."""
        return AvroCodec(schema)

    @functools.cached_property
    def _tag(self) -> Tagger:
        """The tagger, compiled at the first write, since reading needs less of a schema."""
        try:
            return compile_tagger(self.schema.parsed)
        except Exception as error:
            message = f"{self.schema.name} is not a usable schema: {type(error).__name__}: {error}"
            raise ValueError(message) from error

    def encode(self, data: Any) -> bytes:
        """Return Avro binary. Raises ``ValueError`` with the path if the data does not match the schema."""
        buffer = io.BytesIO()
        try:
            fastavro.schemaless_writer(buffer, self.schema.parsed, self._tag(data))
        except (TypeError, KeyError, AttributeError, ArithmeticError, LookupError, RecursionError) as error:
            raise ValueError(f"does not match {self.schema.name}: {type(error).__name__}: {error}") from error
        return buffer.getvalue()

    def decode(self, data: bytes, start: int = 0, reader: Schema | None = None) -> Any:
        """Return the data. Raises ``ValueError`` on bytes that are not exactly one datum of the schema.

        ``reader`` is a later schema of the same data, whose new fields get their defaults.
        """
        source = io.BytesIO(data)
        source.seek(start)
        try:
            value = self._read(source, self._readable, None if reader is None else reader.parsed)
        except Exception as error:  # fastavro raises many kinds on hostile bytes
            raise ValueError(f"not a {self.schema.name}: {type(error).__name__}: {error}") from error
        if source.tell() != len(data):
            raise ValueError(f"not a {self.schema.name}: {len(data) - source.tell()} bytes left over")
        return value


def _read_bounded(source: io.BytesIO, schema: Any, reader: Any) -> Any:
    named: dict[str, Any] = {"writer": {}, "reader": {}}
    writer = fastavro.parse_schema(schema, named["writer"])
    if reader is not None:
        reader = fastavro.parse_schema(reader, named["reader"])
    return python_reader.read_data(_Bounded(source), writer, named, reader, {})  # type: ignore[no-untyped-call]


class _Bounded(BinaryDecoder):
    """Reads ``MAX_ITEMS`` items of arrays, and raises ``ValueError`` at the next."""

    def __init__(self, source: io.BytesIO) -> None:
        super().__init__(source)  # type: ignore[no-untyped-call]
        self._left = MAX_ITEMS

    def iter_array(self) -> Iterator[None]:
        """Yield items up to the limit."""
        for item in super().iter_array():  # type: ignore[no-untyped-call]
            self._left -= 1
            if self._left < 0:
                raise ValueError(f"more than {MAX_ITEMS} items of arrays whose items take no bytes")
            yield item


class _Hazards:
    """Properties that make a schema dangerous to read: ``recursive`` types and ``unbounded`` arrays."""

    def __init__(self, parsed: Any) -> None:
        self.recursive = False
        self.unbounded = False
        self._takes_no_bytes: dict[str, bool | None] = {}
        self._visit(parsed)

    def _visit(self, schema: Any) -> bool:
        """Return whether a value of this schema can take no bytes."""
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
            self._takes_no_bytes[name] = None  # a reference to it before its end is recursive
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
