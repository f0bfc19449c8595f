"""The ``json`` converter: the value alone, or in Kafka Connect's envelope (``schemas.enable``).

Exact as Python's own json: integers of any size, and NaN, Infinity, -Infinity as these words
(as JavaScript writes them; a strict JSON reader refuses them). Bytes cannot be JSON.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from tieline.api import Config, Converter, Datum, Encoded, parse_json, setting
from tieline.api.exact_json import parse_strict
from tieline.converters.plain import deserialize_each, serialize_each

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), check_circular=False).encode
_CONNECT = {str: "string", bool: "boolean", int: "int64", float: "double"}


class JsonConverterConfig(Config):
    """As Kafka Connect's JsonConverter, but for the default: there ``schemas.enable`` is true."""

    schemas_enable: bool = setting(
        "schemas.enable",
        False,
        doc="Kafka Connect's envelope, {schema, payload}. Text, booleans and numbers get their schema, "
        "anything else null, as data without a schema does there; what is read is the payload.",
    )
    schemas_cache_size: int = setting(
        "schemas.cache.size", 1000, doc="Accepted for Connect's files; not needed."
    )


class JsonConverter(Converter[JsonConverterConfig]):
    """Any JSON value, UTF-8."""

    config_type = JsonConverterConfig

    def start(self, config: JsonConverterConfig, **_: Any) -> None:
        """Remember whether there is an envelope."""
        self._envelope = config.schemas_enable

    def serialize(self, batch: Sequence[Datum]) -> list[bytes | None]:
        """Data to JSON. Lone surrogates, which UTF-8 cannot carry, are data errors."""
        enclose = _enclosed if self._envelope else _itself
        return serialize_each(batch, lambda data: _encode(enclose(data)).encode())

    def deserialize(self, batch: Sequence[Encoded]) -> list[Datum]:
        """JSON to data."""
        if self._envelope:
            return deserialize_each(batch, lambda data: _disclosed(parse_json(data)))
        return deserialize_each(batch, parse_json, quick=parse_strict)


def _itself(data: Any) -> Any:
    return data


def _enclosed(data: Any) -> Any:
    kind = _CONNECT.get(type(data))
    if kind == "int64" and not -(2**63) <= data < 2**63:
        kind = None
    return {"schema": kind and {"type": kind, "optional": False}, "payload": data}


def _disclosed(data: Any) -> Any:
    if not isinstance(data, dict) or data.keys() != {"schema", "payload"}:
        raise ValueError('with schemas.enable=true a value is {"schema": …, "payload": …} and nothing else')
    return data["payload"]
