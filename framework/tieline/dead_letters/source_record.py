"""The records of sources in dead letters: data that no converter has written, as bytes and back. Pure."""

from __future__ import annotations

import json
from typing import Any

from tieline.api import Schema, SourceRecord, parse_json
from tieline.converters.codec import AvroBytes, AvroCodec
from tieline.dead_letters.letter import DeadLetter, Form

_MAX_SHOWN = 1 << 20
_dump = json.JSONEncoder(separators=(",", ":")).encode


def source_form(record: SourceRecord) -> tuple[bytes | None, bytes | None, Form]:
    """Return value and key of a record as bytes, and what these are. Never raises.

    Data that fits its schema is Avro binary. Data that does not is kept as JSON, or shown as Python text if
    it is not JSON either.
    """
    value_form, value, value_schema = _encode(record.value, record.value_schema)
    key_form, key, key_schema = _encode(record.key, record.key_schema)
    return value, key, Form(value_form, key_form, value_schema, key_schema)


def source_record(letter: DeadLetter) -> SourceRecord:
    """Return the record that a source's letter holds, for a replay.

    Raises ``ValueError`` if its data cannot be read back: it was shown as Python text, or is damaged.
    """
    form = letter.form or Form("bytes", "bytes")
    value, value_schema = _decode(form.value, letter.value, form.value_schema)
    key, key_schema = _decode(form.key, letter.key, form.key_schema)
    return SourceRecord(
        letter.topic,
        value,
        key,
        headers=letter.headers,
        timestamp=letter.timestamp,
        value_schema=value_schema,
        key_schema=key_schema,
    )


def _encode(data: Any, schema: Schema | None) -> tuple[str, bytes | None, str]:
    if schema is not None and data is not None:
        if type(data) is AvroBytes:
            return "avro", bytes(data), schema.text
        try:
            return "avro", AvroCodec.of(schema).encode(data), schema.text
        except Exception:  # noqa: BLE001 - that it does not fit may be why it is here
            return *_encode_plain(data), schema.text
    return *_encode_plain(data), ""


def _encode_plain(data: Any) -> tuple[str, bytes | None]:
    if data is None:
        return "null", None
    if isinstance(data, bytes):
        return "bytes", bytes(data)
    if isinstance(data, str):
        return "text", data.encode("utf-8", "surrogatepass")
    try:
        text = _dump(data)
        if repr(parse_json(text)) == repr(data):  # NaN is not equal to itself
            return "json", text.encode()
    except Exception:  # noqa: BLE001 - any object can be in here
        pass
    try:
        return "python", repr(data)[:_MAX_SHOWN].encode("utf-8", "backslashreplace")
    except Exception as error:  # noqa: BLE001 - its own repr, or one that is nested too deep
        return "python", f"{type(data).__name__} that cannot be shown: {error}".encode()


def _decode(form: str, data: bytes | None, text: str) -> tuple[Any, Schema | None]:
    schema = Schema.parse(text) if text else None
    if form == "null" or data is None:
        return None, schema
    if form == "bytes":
        return data, schema
    if form == "text":
        return data.decode("utf-8", "surrogatepass"), schema
    if form == "json":
        return parse_json(data), schema
    if form == "avro" and schema is not None:
        return AvroCodec.of(schema).decode(data), schema
    raise ValueError(f"the data is kept as {form}, which cannot be read back")
