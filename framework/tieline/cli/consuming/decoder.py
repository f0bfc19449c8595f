"""What a record says: Avro by its schema's id, JSON, text or bytes, decided for each record by itself."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, cast

from tieline.api import DataError, Encoded, Headers, SchemaStore, parse_json
from tieline.broker.port import Broker, ConsumedRecord
from tieline.cli.printable import json_text, time_text
from tieline.converters.avro import AvroConverter, AvroConverterConfig
from tieline.registry.schema_topic import TopicSchemaStore

_FRAME = 5


class ValueFormat(str, enum.Enum):
    """What values are taken for."""

    AUTO = "auto"
    AVRO = "avro"
    JSON = "json"
    TEXT = "text"
    BYTES = "bytes"


class Decoded(NamedTuple):
    """One datum; ``error`` says why it is shown as bytes where it should be something else."""

    format: str
    data: Any
    schema: str | None = None
    error: str | None = None


class DisplayRecord(NamedTuple):
    """One record, decoded."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: Decoded
    headers: Headers
    value: Decoded

    def as_json(self) -> dict[str, Any]:
        """For a line of JSON. Bytes become base64, which ``format`` and ``key_format`` say."""
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
    """Never fails at what a record holds; raises ``Retriable`` while the schema store is away."""

    def __init__(self, form: ValueFormat, broker: Broker, registry: SchemaStore | None) -> None:
        """``registry``: where schemas have ids; none: the topic of the broker."""
        self._looking = _LookingOnce(broker)
        schemas = registry or TopicSchemaStore(cast(Broker, self._looking))
        self._avro = AvroConverter()
        self._avro.start(AvroConverterConfig.parse({}), is_key=False, schemas=schemas)
        self._ways: Mapping[ValueFormat, Callable[[bytes], Decoded]] = {
            ValueFormat.AUTO: self._guessed,
            ValueFormat.AVRO: self._by_schema,
            ValueFormat.JSON: _json,
            ValueFormat.TEXT: lambda data: Decoded("text", data.decode()),
            ValueFormat.BYTES: lambda data: Decoded("bytes", data),
        }
        self._value = self._ways[form]

    def decode(self, records: Sequence[ConsumedRecord]) -> list[DisplayRecord]:
        """The same records, in their order; a batch that has just come."""
        self._looking.new_batch()
        return [
            DisplayRecord(
                r.topic, r.partition, r.offset, r.timestamp, self._key(r.key), r.headers, self._one(r.value)
            )
            for r in records
        ]

    def _one(self, data: bytes | None) -> Decoded:
        if data is None:
            return Decoded("null", None)
        try:
            return self._value(data)
        except (ValueError, RecursionError) as error:
            return Decoded("bytes", data, error=str(error) or type(error).__name__)

    def _key(self, data: bytes | None) -> Decoded:
        """Text is not taken for JSON: the key 7 is a name, not a number."""
        if data is None:
            return Decoded("null", None)
        for way in (self._by_schema, _text) if data[:1] == b"\0" else (_text,):
            try:
                return way(data)
            except ValueError:
                continue
        return Decoded("bytes", data)

    def _guessed(self, data: bytes) -> Decoded:
        if data[:1] == b"\0" and len(data) >= _FRAME:  # no JSON and hardly a text begins so
            return self._by_schema(data)
        for way in (_json, _text):
            try:
                return way(data)
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
    """UTF-8 without control characters, but for those of lines and columns."""
    text = data.decode()
    if any(ord(c) < 32 and c not in "\t\n\r" for c in text):
        raise ValueError("control characters, which no text has")
    return Decoded("text", text)


def _showable(decoded: Decoded) -> Decoded:
    """Raises ``ValueError``, ``RecursionError`` for what was read and cannot be written."""
    json_text(decoded.data)
    return decoded


def _header(value: bytes | None) -> Any:
    try:
        return None if value is None else value.decode()
    except UnicodeDecodeError:
        return {"base64": value}


class _LookingOnce:
    """The broker of a schema store that reads its topic once a batch, however many ids are unknown.

    A schema is registered before its first record is written: one look after a batch came knows all of
    its ids. Without this, data that begins with 0x00 and is no Avro costs a look a record.
    """

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._looked = False

    def new_batch(self) -> None:
        """A batch came: the next unknown id is worth a look again."""
        self._looked = False

    def read(
        self,
        topic: str,
        visit: Callable[[ConsumedRecord], None],
        *,
        start: Mapping[int, int] | None = None,
        timeout: float = 30.0,
    ) -> dict[int, int]:
        """See ``Broker.read``."""
        if self._looked:
            return dict(start or {})
        reached = self._broker.read(topic, visit, start=start, timeout=timeout)
        self._looked = True
        return reached
