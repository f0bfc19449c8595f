"""Converts Avro schemas to Kafka Connect's JSON schemas, and data to payloads; pure."""

from __future__ import annotations

import base64
import decimal
import uuid
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from tieline.api import Schema
from tieline.api.readable import logical_type
from tieline.converters.connect import DATA, DEFAULT_NAME
from tieline.converters.logical_writing import EXACT, logical_writing, signed_bytes

Write = Callable[[Any], Any]
"""Converts data to its payload."""

_PLAIN = {
    "boolean": "boolean",
    "int": "int32",
    "long": "int64",
    "float": "float",
    "double": "double",
    "string": "string",
    "enum": "string",
    "bytes": "bytes",
    "fixed": "bytes",
}
_LOGICAL = {"date": "Date", "time-millis": "Time", "timestamp-millis": "Timestamp"}


class ConnectForm(NamedTuple):
    """A schema of Connect, and the function that writes its payloads."""

    schema: Mapping[str, Any]
    write: Write


class _NoConnectTypeError(Exception):
    """Connect does not have the type."""


def connect_form(schema: Schema) -> ConnectForm | None:
    """Return Connect's form of a schema, or ``None`` if it is recursive or a union of several types."""
    try:
        return _Compiler().part(schema.definition, "")
    except (_NoConnectTypeError, KeyError, TypeError, ValueError):
        return None


class _Compiler:
    def __init__(self) -> None:
        self._named: dict[str, ConnectForm | None] = {}

    def part(self, part: Any, space: str) -> ConnectForm:
        if isinstance(part, list):
            return self._union(part, space)
        if isinstance(part, str):
            if part in _PLAIN:
                return _form(_PLAIN[part], _writing(part))
            form = self._named.get(part if "." in part or not space else f"{space}.{part}")
            if form is None:  # a recursive record, or null alone
                raise _NoConnectTypeError
            return form
        kind = part["type"]
        if kind in ("record", "error"):
            return self._record(part, space)
        if kind == "array":
            return self._array(part, space)
        if kind == "map":
            values = self.part(part["values"], space)
            keys = part.get("connect.keys", {"type": "string", "optional": False})
            parts = {"keys": keys, "values": values.schema}
            return _form("map", lambda value: {k: values.write(v) for k, v in value.items()}, part, **parts)
        if not isinstance(kind, str) or kind not in _PLAIN:
            return self.part(kind, space)
        form = self._leaf(part, kind)
        if "name" in part:
            self._named[_full_name(part, space)] = form
        return form

    def _union(self, branches: list[Any], space: str) -> ConnectForm:
        others = [branch for branch in branches if branch != "null"]
        if len(others) != 1:
            raise _NoConnectTypeError
        form = self.part(others[0], space)
        if len(branches) == 1:
            return form
        return ConnectForm(
            {**form.schema, "optional": True}, lambda value: None if value is None else form.write(value)
        )

    def _record(self, part: Mapping[str, Any], space: str) -> ConnectForm:
        name = _full_name(part, space)
        self._named[name] = None
        fields, writes = [], []
        for field in part["fields"]:
            form = self.part(field["type"], name.rpartition(".")[0])
            default = {"default": field["connect.default"]} if "connect.default" in field else {}
            fields.append({**form.schema, **default, "field": field["name"]})
            writes.append((field["name"], form.write))

        def write(value: Any) -> Any:
            return {name: write_field(value.get(name)) for name, write_field in writes}

        schema = dict(_form("struct", write, part, fields=fields).schema)
        if "name" not in schema and not name.startswith(DEFAULT_NAME):
            schema["name"] = name
        form = self._named[name] = ConnectForm(schema, write)
        return form

    def _array(self, part: Mapping[str, Any], space: str) -> ConnectForm:
        items = self.part(part["items"], space)
        if part.get("connect.type") != "map":
            return _form("array", lambda value: [*map(items.write, value)], part, items=items.schema)
        key, value = ({k: v for k, v in field.items() if k != "field"} for field in items.schema["fields"])

        def write(value: Any) -> Any:
            return [[*items.write(entry).values()] for entry in value]

        return _form("map", write, part, keys=key, values=value)

    def _leaf(self, part: Mapping[str, Any], kind: str) -> ConnectForm:
        name = logical_type(part)
        if name == "decimal" or part.get("connect.name") == f"{DATA}Decimal":
            return self._decimal(part)
        writing = logical_writing(part)
        write = _writing(kind, writing[0] if writing else None)
        if name in _LOGICAL:
            return _form(_PLAIN[kind], write, {"connect.version": 1, **part}, name=f"{DATA}{_LOGICAL[name]}")
        return _form(part.get("connect.type", _PLAIN[kind]), write, part)

    def _decimal(self, part: Mapping[str, Any]) -> ConnectForm:
        scale = int(part.get("scale", 0))
        parameters = {"scale": str(scale), "connect.decimal.precision": str(part["precision"])}
        attributes = {"connect.version": 1, "connect.parameters": parameters, **part}
        return _form("bytes", _unscaled(scale), attributes, name=f"{DATA}Decimal")


def _form(kind: str, write: Write, part: Mapping[str, Any] | None = None, **parts: Any) -> ConnectForm:
    """Return a form in Connect's order: type and parts, optional, name, version, doc, parameters."""
    name = parts.pop("name", None)
    part = {**({"connect.name": name} if name else {}), **(part or {})}
    kept = {
        key: part[f"connect.{key}"]
        for key in ("name", "version", "doc", "parameters")
        if f"connect.{key}" in part
    }
    return ConnectForm({"type": kind, **parts, "optional": False, **kept}, write)


def _writing(kind: str, logical: Write | None = None) -> Write:
    def write(value: Any) -> Any:
        stored = logical(value) if logical is not None else value
        if isinstance(stored, uuid.UUID):
            stored = stored.bytes
        return base64.b64encode(stored).decode() if isinstance(stored, bytes) else stored

    return write


def _unscaled(scale: int) -> Write:
    def write(value: Any) -> Any:
        if isinstance(value, decimal.Decimal):
            unscaled = value.scaleb(scale, EXACT)
            if unscaled != unscaled.to_integral_value():
                raise ValueError(
                    f"the decimal {str(value)[:40]} has more than {scale} digits after the point"
                )
            value = signed_bytes(int(unscaled))
        return base64.b64encode(value).decode()

    return write


def _full_name(part: Mapping[str, Any], space: str) -> str:
    name, namespace = str(part["name"]), part.get("namespace", space)
    return name if "." in name or not namespace else f"{namespace}.{name}"
