"""Converting JSON, as people write it, into the data that an Avro schema describes.

A field with a default may be left out. Values are written as ``tieline consume`` prints them: bytes in
base64, dates, times and timestamps in ISO 8601, decimals as numbers or text. Anything else must be what the
schema says; the converter checks it.
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import decimal
import json
import re
import uuid
from typing import Any

from tieline.api import Schema
from tieline.api.readable import logical_type
from tieline.converters.logical import uuid_of

_RECORDS = ("record", "error")
_BINARY = ("bytes", "fixed")
_FLOATS = ("float", "double")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,9})?\Z", re.ASCII)


class _UnfitError(ValueError):
    """A value that does not fit its type; the message still lacks the field."""


class SchemaFitter:
    """Fits values to one schema. ``fit`` raises ``ValueError`` with the field."""

    def __init__(self, schema: Schema) -> None:
        self._schema = schema.parsed
        self._named: dict[str, Any] = {}
        self._has_decimals = False
        self._index(schema.parsed)

    def fit(self, value: Any, text: bytes | None = None) -> Any:
        """Return the data that the Avro converter takes.

        ``text``: the JSON of the value, for the digits of a decimal that a double does not hold.
        """
        if self._has_decimals and text is not None:
            value = json.loads(text.decode("utf-8", "surrogatepass"), parse_float=decimal.Decimal)
        return self._fit(self._schema, value)

    def _index(self, schema: Any) -> None:
        if isinstance(schema, list):
            for branch in schema:
                self._index(branch)
        elif isinstance(schema, dict):
            if "name" in schema:
                self._named[schema["name"]] = schema
            self._has_decimals |= logical_type(schema) == "decimal"
            for field in schema.get("fields", ()):
                self._index(field["type"])
            for inner in ("items", "values", "type"):
                if isinstance(schema.get(inner), (list, dict)):
                    self._index(schema[inner])

    def _fit(self, schema: Any, value: Any) -> Any:
        if isinstance(schema, list):
            return self._union(schema, value)
        schema = self._named.get(schema, schema) if isinstance(schema, str) else schema
        kind = _kind(schema)
        if isinstance(kind, (list, dict)):
            return self._fit(kind, value)
        if isinstance(value, dict):
            return self._fit_object(schema, kind, value)
        if isinstance(value, list):
            return [self._fit(schema["items"], item) for item in value] if kind == "array" else value
        return self._fit_scalar(schema, kind, value)

    def _fit_object(self, schema: Any, kind: Any, value: dict[str, Any]) -> Any:
        if kind in _RECORDS:
            return self._record(schema, value)
        if kind == "map":
            return {name: self._fit(schema["values"], item) for name, item in value.items()}
        return value

    def _fit_scalar(self, schema: Any, kind: Any, value: Any) -> Any:
        logical = logical_type(schema) if isinstance(schema, dict) else None
        if logical == "decimal":
            return _decimal(value)
        if isinstance(value, decimal.Decimal):
            return float(value)
        if isinstance(value, str):
            if logical is not None and (kind, logical) in _FROM_TEXT:
                return _FROM_TEXT[kind, logical](value)
            if kind in _BINARY:
                return _bytes(value)
        return value

    def _record(self, schema: Any, value: dict[str, Any]) -> dict[str, Any]:
        missing = [f["name"] for f in schema["fields"] if f["name"] not in value and "default" not in f]
        if missing:
            raise ValueError(f"{schema['name']}: lacks {', '.join(missing)}")
        fitted = dict(value)
        for field in schema["fields"]:
            name = field["name"]
            if name in value:
                try:
                    fitted[name] = self._fit(field["type"], value[name])
                except _UnfitError as error:
                    raise ValueError(f"{schema['name']}.{name}: {error}") from None
            else:
                fitted[name] = _default(field)
        return fitted

    def _union(self, branches: list[Any], value: Any) -> Any:
        """Fit a value to the first branch that takes it. A text stays a text if a branch takes any text."""
        kinds = [self._kinds(branch) for branch in branches]
        if isinstance(value, dict):
            for (kind, _), branch in zip(kinds, branches, strict=True):
                if kind == "map" or (kind in _RECORDS and self._suits(branch, value)):
                    return self._fit(branch, value)
        elif isinstance(value, list):
            for (kind, _), branch in zip(kinds, branches, strict=True):
                if kind == "array":
                    return self._fit(branch, value)
        elif isinstance(value, str):
            return self._text_in_union(branches, kinds, value)
        elif type(value) in (int, float, decimal.Decimal):
            types = {kind for kind, _ in kinds}
            plain = _FLOATS if type(value) is not int else (*_FLOATS, "int", "long")
            if types.isdisjoint(plain) and any(logical == "decimal" for _, logical in kinds):
                return _decimal(value)
            return float(value) if isinstance(value, decimal.Decimal) else value
        return value

    def _text_in_union(self, branches: list[Any], kinds: list[tuple[Any, str | None]], text: str) -> Any:
        """Fit a text to the first branch that it can be converted to."""
        if any(kind == "enum" or (kind == "string" and logical is None) for kind, logical in kinds):
            return text
        cause: Exception | None = None
        for (kind, logical), branch in zip(kinds, branches, strict=True):
            if kind in _BINARY or (kind, logical) in _FROM_TEXT:
                try:
                    return self._fit(branch, text)
                except _UnfitError as error:
                    cause = cause or error
        if cause is not None:
            raise cause
        return text

    def _kinds(self, branch: Any) -> tuple[Any, str | None]:
        definition = self._named.get(branch, branch) if isinstance(branch, str) else branch
        return _kind(definition), logical_type(definition) if isinstance(definition, dict) else None

    def _suits(self, branch: Any, value: dict[str, Any]) -> bool:
        fields = (self._named[branch] if isinstance(branch, str) else branch)["fields"]
        needed = {field["name"] for field in fields if "default" not in field}
        return needed <= value.keys() <= {field["name"] for field in fields}


def _kind(schema: Any) -> Any:
    return schema["type"] if isinstance(schema, dict) else schema


def _default(field: Any) -> Any:
    """Return a field's default. For bytes, a schema writes it as text (Avro 1.11, "Complex Types")."""
    default, kind = field["default"], field["type"]
    first = _kind(kind[0] if isinstance(kind, list) else kind)
    return default.encode("latin-1") if first in _BINARY and isinstance(default, str) else default


def _bytes(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise _UnfitError(f"{text[:20]!r} is not base64, in which bytes are written") from None


def _decimal(value: Any) -> Any:
    """Return a decimal for a number or the text of one, else the bytes that the base64 text encodes."""
    if isinstance(value, str):
        return decimal.Decimal(value) if _NUMBER.match(value) else _bytes(value)
    if type(value) is int or type(value) is float:
        return decimal.Decimal(repr(value))
    return value


def _timestamp(text: str) -> dt.datetime:
    try:
        return dt.datetime.fromisoformat(text.replace("Z", "+00:00").replace("z", "+00:00"))
    except ValueError:
        raise _UnfitError(f"{text[:40]!r} is not a time in ISO 8601, such as 2026-01-02T12:30:00Z") from None


def _local_timestamp(text: str) -> dt.datetime:
    timestamp = _timestamp(text)
    if timestamp.tzinfo is not None:
        raise _UnfitError(f"{text[:40]!r} has a time zone; a local timestamp must not have one")
    return timestamp


def _date(text: str) -> dt.date:
    try:
        return dt.date.fromisoformat(text)
    except ValueError:
        raise _UnfitError(f"{text[:40]!r} is not a date, such as 2026-01-02") from None


def _time(text: str) -> dt.time:
    try:
        time = dt.time.fromisoformat(text)
    except ValueError:
        time = None
    if time is None or time.tzinfo is not None:
        raise _UnfitError(f"{text[:40]!r} is not a time of day, such as 12:30:00") from None
    return time


def _uuid(text: str) -> uuid.UUID:
    value = uuid_of(text)
    if isinstance(value, str):
        raise _UnfitError(f"{text[:40]!r} is not a UUID")
    return value


_FROM_TEXT = {
    ("int", "date"): _date,
    ("int", "time-millis"): _time,
    ("long", "time-micros"): _time,
    **{("long", f"timestamp-{unit}"): _timestamp for unit in ("millis", "micros", "nanos")},
    **{("long", f"local-timestamp-{unit}"): _local_timestamp for unit in ("millis", "micros", "nanos")},
    ("fixed", "uuid"): _uuid,
    ("string", "uuid"): _uuid,
}
"""Logical types that are written as text and stored as something else."""
