"""The ``json`` converter: the value alone, without a schema beside it (``schemas.enable=false``).

Python's own json, for it is exact: integers of any size, and NaN, Infinity, -Infinity as these words
(as JavaScript writes them; a strict JSON reader refuses them). Bytes cannot be JSON.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from tieline.api import Config, Converter, Datum, Encoded, setting
from tieline.converters.plain import deserialize_each, serialize_each

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), check_circular=False).encode


class JsonConverterConfig(Config):
    """As Kafka Connect's JsonConverter."""

    schemas_enable: bool = setting(
        "schemas.enable",
        False,
        doc="A schema beside each value: not supported; the avro converter has schemas.",
    )
    schemas_cache_size: int = setting(
        "schemas.cache.size", 1000, doc="Accepted for Connect's files; not needed."
    )

    def mistakes(self) -> list[tuple[str, str]]:
        """Connect's envelope is not written here."""
        if self.schemas_enable:
            return [("schemas.enable", "only false is supported; use the avro converter to keep the schema")]
        return []


class JsonConverter(Converter[JsonConverterConfig]):
    """Any JSON value, UTF-8."""

    config_type = JsonConverterConfig

    def serialize(self, batch: Sequence[Datum]) -> list[bytes | None]:
        """Data to JSON. Lone surrogates, which UTF-8 cannot carry, are data errors."""
        return serialize_each(batch, lambda data: _encode(data).encode())

    def deserialize(self, batch: Sequence[Encoded]) -> list[Datum]:
        """JSON to data."""
        return deserialize_each(batch, json.loads)
