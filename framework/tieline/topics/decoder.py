"""Decoding records for display: Avro by its schema's id, JSON, text or bytes, for each record on its own."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, cast

from tieline.api import DataError, Encoded, Headers, SchemaStore, parse_json
from tieline.broker.port import Broker
from tieline.broker.records import ConsumedRecord
from tieline.converters.avro import AvroConverter, AvroConverterConfig
from tieline.registry.schema_topic import TopicSchemaStore
from tieline.topics.printable import json_text, time_text

_FRAME = 5


class ValueFormat(str, enum.Enum):
    """How values are decoded."""

    AUTO = "auto"
    AVRO = "avro"
    JSON = "json"
    TEXT = "text"
    BYTES = "bytes"


class Decoded(NamedTuple):
    """A decoded key or value. ``error``: why it is shown as bytes, although another format was expected."""

    format: str
    data: Any
    schema: str | None = None
    error: str | None = None


class DisplayRecord(NamedTuple):
    """A decoded record."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: Decoded
    headers: Headers
    value: Decoded

    def as_json(self) -> dict[str, Any]:
        """Return the record for a line of JSON. Bytes become base64; ``format`` and ``key_format`` say so."""
        out: dict[str, Any] = {
            "topic": self.topic,
            "partition": self.partition,
            "offset": self.offset,
            "timestamp": time_text(self.timestamp),
            "key": self.key.data,
            "headers": [[name, _header(value)] for name, value in self.headers],
            "value": self.value.data,
            "format": self.value.format,
        }
        if self.key.format not in ("text", "null"):
            out["key_format"] = self.key.format
        if self.value.schema is not None:
            out["schema"] = self.value.schema
        if self.value.error is not None:
            out["error"] = self.value.error
        return out


class Decoder:
    """Decodes any content. Raises ``RetriableError`` only while the schema store is unavailable."""

    def __init__(self, value_format: ValueFormat, broker: Broker, registry: SchemaStore | None) -> None:
        """``registry``: the store of schemas by id; ``None`` for the broker's own topic."""
        self._broker = _OneReadPerBatch(broker)
        schemas = registry or TopicSchemaStore(cast(Broker, self._broker))
        self._avro = AvroConverter(AvroConverterConfig.parse({}), is_key=False, schemas=schemas)
        decoders: Mapping[ValueFormat, Callable[[bytes], Decoded]] = {
            ValueFormat.AUTO: self._detect,
            ValueFormat.AVRO: self._by_schema,
            ValueFormat.JSON: _json,
            ValueFormat.TEXT: lambda data: Decoded("text", data.decode()),
            ValueFormat.BYTES: lambda data: Decoded("bytes", data),
        }
        self._decode_value = decoders[value_format]

    def decode(self, records: Sequence[ConsumedRecord]) -> list[DisplayRecord]:
        """Return a batch that has just arrived, decoded, in its order."""
        self._broker.new_batch()
        return [
            DisplayRecord(
                r.topic, r.partition, r.offset, r.timestamp, self._key(r.key), r.headers, self._value(r.value)
            )
            for r in records
        ]

    def _value(self, data: bytes | None) -> Decoded:
        if data is None:
            return Decoded("null", None)
        try:
            return self._decode_value(data)
        except (ValueError, RecursionError) as error:
            return Decoded("bytes", data, error=str(error) or type(error).__name__)

    def _key(self, data: bytes | None) -> Decoded:
        """Decode a key. It is never decoded as JSON: the key 7 is a name, not a number."""
        if data is None:
            return Decoded("null", None)
        for decode in (self._by_schema, _text) if data[:1] == b"\0" else (_text,):
            try:
                return decode(data)
            except ValueError:
                continue
        return Decoded("bytes", data)

    def _detect(self, data: bytes) -> Decoded:
        if data[:1] == b"\0" and len(data) >= _FRAME:  # no JSON and hardly any text begins with it
            return self._by_schema(data)
        for decode in (_json, _text):
            try:
                return decode(data)
            except (ValueError, RecursionError):
                continue
        return Decoded("bytes", data)

    def _by_schema(self, data: bytes) -> Decoded:
        try:
            (datum,) = self._avro.deserialize([Encoded("", data)])
        except DataError as error:
            raise ValueError(str(error.failures[0])) from None
        return _showable(Decoded("avro", datum.data, datum.schema.name if datum.schema else None))


def _json(data: bytes) -> Decoded:
    return _showable(Decoded("json", parse_json(data)))


def _text(data: bytes) -> Decoded:
    """Decode UTF-8. Raises ``ValueError`` for control characters other than tab and line breaks."""
    text = data.decode()
    if any(ord(c) < 32 and c not in "\t\n\r" for c in text):
        raise ValueError("it has control characters")
    return Decoded("text", text)


def _showable(decoded: Decoded) -> Decoded:
    """Return the same, or raise ``ValueError`` or ``RecursionError`` if it cannot be written as JSON."""
    json_text(decoded.data)
    return decoded


def _header(value: bytes | None) -> Any:
    try:
        return None if value is None else value.decode()
    except UnicodeDecodeError:
        return {"base64": value}


class _OneReadPerBatch:
    """The broker of a schema store, which reads its topic at most once per batch.

    A schema is registered before its first record is written, so one read after a batch arrived finds all of
    its ids. Without this, data that begins with 0x00 but is not Avro would cost a read per record.
    """

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._has_read = False

    def new_batch(self) -> None:
        """Allow one read for the next unknown id."""
        self._has_read = False

    def read(
        self,
        topic: str,
        visit: Callable[[ConsumedRecord], None],
        *,
        start: Mapping[int, int] | None = None,
        timeout: float = 30.0,
    ) -> dict[int, int]:
        """Visit every record of a topic up to its present end; see ``Broker.read``."""
        if self._has_read:
            return dict(start or {})
        reached = self._broker.read(topic, visit, start=start, timeout=timeout)
        self._has_read = True
        return reached
