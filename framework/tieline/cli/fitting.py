"""JSON as somebody writes it, made true to a schema.

A field that has a default may be left out, bytes are written in base64, times of a logical type in ISO
8601: as ``tieline consume`` prints them. All else has to be what the schema says; the converter checks it.
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
from typing import Any

from tieline.api import Schema

_RECORDS = ("record", "error")
_BINARY = ("bytes", "fixed")


class Fitting:
    """For one schema; ``fit`` raises ``ValueError`` with the place."""

    def __init__(self, schema: Schema) -> None:
        self._schema = schema.parsed
        self._named: dict[str, Any] = {}
        self._remember(schema.parsed)

    def fit(self, value: Any) -> Any:
        """The data that the Avro converter takes."""
        return self._fit(self._schema, value)

    def _remember(self, schema: Any) -> None:
        if isinstance(schema, list):
            for branch in schema:
                self._remember(branch)
        elif isinstance(schema, dict):
            if "name" in schema:
                self._named[schema["name"]] = schema
            for field in schema.get("fields", ()):
                self._remember(field["type"])
            for inner in ("items", "values", "type"):
                if isinstance(schema.get(inner), (list, dict)):
                    self._remember(schema[inner])

    def _fit(self, schema: Any, value: Any) -> Any:
        if isinstance(schema, list):
            return self._union(schema, value)
        schema = self._named.get(schema, schema) if isinstance(schema, str) else schema
        kind = _kind(schema)
        if isinstance(kind, (list, dict)):
            return self._fit(kind, value)
        if kind in _RECORDS and isinstance(value, dict):
            return self._record(schema, value)
        if kind == "map" and isinstance(value, dict):
            return {name: self._fit(schema["values"], item) for name, item in value.items()}
        if kind == "array" and isinstance(value, list):
            return [self._fit(schema["items"], item) for item in value]
        if isinstance(value, str):
            if isinstance(schema, dict) and str(schema.get("logicalType", "")).startswith("timestamp-"):
                return _time(value)
            if kind in _BINARY:
                return _bytes(value)
        return value

    def _record(self, schema: Any, value: dict[str, Any]) -> dict[str, Any]:
        missing = [f["name"] for f in schema["fields"] if f["name"] not in value and "default" not in f]
        if missing:
            raise ValueError(f"{schema['name']}: lacks {', '.join(missing)}")
        out = dict(value)
        for field in schema["fields"]:
            name = field["name"]
            if name in value:
                out[name] = self._fit(field["type"], value[name])
            else:
                out[name] = _default(field)
        return out

    def _union(self, branches: list[Any], value: Any) -> Any:
        """A text stays one where there is a branch for it; of records the first that these fields fit."""
        kinds = [(_kind(self._named.get(b, b) if isinstance(b, str) else b), b) for b in branches]
        if isinstance(value, str) and not any(kind in ("string", "enum") for kind, _ in kinds):
            wanted: tuple[str, ...] = (*_BINARY, "long")
        elif isinstance(value, dict):
            for kind, branch in kinds:
                if kind in _RECORDS and self._suits(branch, value):
                    return self._fit(branch, value)
            wanted = ("map",)
        elif isinstance(value, list):
            wanted = ("array",)
        else:
            return value
        for kind, branch in kinds:
            if kind in wanted:
                return self._fit(branch, value)
        return value

    def _suits(self, branch: Any, value: dict[str, Any]) -> bool:
        fields = (self._named[branch] if isinstance(branch, str) else branch)["fields"]
        needed = {field["name"] for field in fields if "default" not in field}
        return needed <= value.keys() <= {field["name"] for field in fields}


def _kind(schema: Any) -> Any:
    return schema["type"] if isinstance(schema, dict) else schema


def _default(field: Any) -> Any:
    """As the schema writes it; that of bytes is text there (Avro 1.11, "Complex Types")."""
    default, kind = field["default"], field["type"]
    first = _kind(kind[0] if isinstance(kind, list) else kind)
    return default.encode("latin-1") if first in _BINARY and isinstance(default, str) else default


def _bytes(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError(f"{text[:20]!r} is no base64, in which bytes are written") from None


def _time(text: str) -> dt.datetime:
    try:
        return dt.datetime.fromisoformat(text.replace("Z", "+00:00").replace("z", "+00:00"))
    except ValueError:
        raise ValueError(f"{text[:40]!r} is no time in ISO 8601") from None
