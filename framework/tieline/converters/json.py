"""The ``json`` converter: the value alone, or in Kafka Connect's envelope (``schemas.enable``).

It is as exact as Python's json: integers have any size. NaN, Infinity and -Infinity are written as words, as
in JavaScript; strict JSON readers reject them. Bytes need the envelope. An empty value is read as Kafka's
null, since some producers cannot write null.
"""

from __future__ import annotations

import base64
import decimal
import functools
import json
from collections.abc import Callable, Sequence
from typing import Any

from tieline.api import Config, Converter, Datum, Encoded, Schema, SchemaStore, parse_json, setting
from tieline.api.exact_json import parse_strict
from tieline.converters.connect import ConnectSchema, connect_schema
from tieline.converters.connect_writing import connect_form
from tieline.converters.plain import deserialize_each, serialize_each

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), check_circular=False).encode
_with_all_digits = json.JSONDecoder(parse_float=decimal.Decimal).decode
_CONNECT = {str: "string", bool: "boolean", int: "int64", float: "double", bytes: "bytes"}


class JsonConverterConfig(Config):
    """The settings of Kafka Connect's JsonConverter, where ``schemas.enable`` is true by default."""

    schemas_enable: bool = setting(
        "schemas.enable",
        False,
        doc="Whether data has Kafka Connect's envelope {schema, payload}, with its types, including "
        "logical ones. Kafka Connect's default is true.",
    )
    schemas_cache_size: int = setting(
        "schemas.cache.size", 1000, ge=1, doc="How many schemas of envelopes are remembered."
    )
    replace_null_with_default: bool = setting(
        "replace.null.with.default",
        True,
        doc="Whether a null in the envelope is read as the default of its field, if it has one.",
    )


class JsonConverter(Converter[JsonConverterConfig]):
    """Converts any JSON value to UTF-8 and back."""

    config_type = JsonConverterConfig

    def __init__(self, config: JsonConverterConfig, *, is_key: bool, schemas: SchemaStore) -> None:
        super().__init__(config, is_key=is_key, schemas=schemas)
        self._envelope = config.schemas_enable
        replace_null = config.replace_null_with_default

        @functools.lru_cache(config.schemas_cache_size)
        def read_schema(text: str) -> ConnectSchema:
            return connect_schema(json.loads(text), replace_null=replace_null)

        self._read_schema: Callable[[str], ConnectSchema] = read_schema
        self._form = functools.lru_cache(config.schemas_cache_size)(connect_form)

    def serialize(self, batch: Sequence[Datum]) -> list[bytes | None]:
        """Convert data to JSON. Lone surrogates, which UTF-8 cannot encode, are data errors."""
        if not self._envelope:
            return serialize_each(batch, lambda datum: _encode(datum.data).encode())
        return serialize_each(
            batch, lambda datum: _encode(self._wrap(datum)).encode(), nulls_with_schema=True
        )

    def deserialize(self, batch: Sequence[Encoded]) -> list[Datum]:
        """Convert JSON to data."""
        if self._envelope:
            return deserialize_each(batch, self._unwrap)
        return deserialize_each(
            batch, lambda data: (parse_json(data) if data else None, None), quick=parse_strict
        )

    def _wrap(self, datum: Datum) -> Any:
        _, data, schema = datum
        form = self._form(schema) if schema is not None else None
        if form is not None:
            return {"schema": form.schema, "payload": form.write(data)}
        kind = _CONNECT.get(type(data)) if schema is None else None
        if kind == "int64" and not -(2**63) <= data < 2**63:
            kind = None
        if kind == "bytes":
            data = base64.b64encode(data).decode()
        return {"schema": kind and {"type": kind, "optional": False}, "payload": data}

    def _unwrap(self, data: bytes) -> tuple[Any, Schema | None]:
        if not data:
            return None, None
        envelope = parse_json(data)
        if not isinstance(envelope, dict) or envelope.keys() != {"schema", "payload"}:
            raise ValueError(
                'with schemas.enable=true a value is {"schema": …, "payload": …} and nothing else'
            )
        if envelope["schema"] is None:
            return envelope["payload"], None
        known = self._read_schema(_encode(envelope["schema"]))
        if known.has_decimals:
            envelope = _with_all_digits(data.decode("utf-8", "surrogatepass").removeprefix("\ufeff"))
        return known.read(envelope["payload"]), known.schema
