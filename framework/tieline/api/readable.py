"""Reduces an Avro schema to the parts that reading needs; pure.

The Avro specification (1.11) requires readers to ignore an invalid logical type. Old schemas have defaults,
aliases and symbols that a strict parser rejects. Their data can be read nevertheless: types, order, sizes and
the number of symbols are enough.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

ENUM = "enum"
"""The logical type, after the prefix, of an enum whose symbols are not names: an int with its symbols."""

SYMBOLS = "tieline.symbols"

_SYMBOL = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_BASES: Mapping[str, tuple[str, ...]] = {
    "date": ("int",),
    "time-millis": ("int",),
    "time-micros": ("long",),
    "timestamp-millis": ("long",),
    "timestamp-micros": ("long",),
    "timestamp-nanos": ("long",),
    "local-timestamp-millis": ("long",),
    "local-timestamp-micros": ("long",),
    "local-timestamp-nanos": ("long",),
    "decimal": ("bytes", "fixed"),
    "uuid": ("string", "fixed"),
    "duration": ("fixed",),
}
_SIZES = {"uuid": 16, "duration": 12}


def readable(definition: Any, prefix: str = "") -> Any:
    """Return the schema with only the parts that reading needs.

    ``prefix`` is put before the name of each logical type, so that the caller's own functions read it. Raises
    ``ValueError``, ``KeyError`` or ``TypeError`` on an invalid schema.
    """
    return _Reduced(prefix).schema(definition, "")


def logical_type(schema: Mapping[str, Any]) -> str | None:
    """Return the logical type of a schema, or ``None`` if it is missing or invalid."""
    name, base = schema.get("logicalType"), schema.get("type")
    if not isinstance(name, str) or base not in _BASES.get(name, ()):
        return None
    size = schema.get("size", 0)
    if base == "fixed" and _SIZES.get(name, size) != size:
        return None
    return name if name != "decimal" or _is_decimal(schema, size if base == "fixed" else None) else None


def _is_decimal(schema: Mapping[str, Any], size: int | None) -> bool:
    precision, scale = schema.get("precision"), schema.get("scale", 0)
    if type(precision) is not int or type(scale) is not int or not 0 <= scale <= precision or precision < 1:
        return False
    return size is None or precision <= math.floor(math.log10(2) * (8 * size - 1))


class _Reduced:
    """Reduces one schema; remembers the replacement of a named type under its full name."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._replacements: dict[str, Any] = {}

    def schema(self, part: Any, space: str) -> Any:
        if isinstance(part, list):
            return [self.schema(branch, space) for branch in part]
        if isinstance(part, str):
            return self._replacements.get(part if "." in part or not space else f"{space}.{part}", part)
        kind = part["type"]
        if isinstance(kind, (dict, list)):
            return self.schema(kind, space)
        if kind in ("record", "error"):
            return self._record(part, space)
        if kind == "enum":
            return self._enum(part, space)
        if kind == "array":
            return {"type": kind, "items": self.schema(part["items"], space)}
        if kind == "map":
            return {"type": kind, "values": self.schema(part["values"], space)}
        if kind == "fixed":
            name = _named(_full_name(part, space))
            return {"type": kind, **name, "size": part["size"], **self._logic(part)}
        logic = self._logic(part)
        return {"type": kind, **logic} if logic else self.schema(kind, space)

    def _record(self, part: Mapping[str, Any], space: str) -> Any:
        name = _full_name(part, space)
        inner = name.rpartition(".")[0]
        fields = [
            {"name": field["name"], "type": self.schema(field["type"], inner)} for field in part["fields"]
        ]
        return {"type": part["type"], **_named(name), "fields": fields}

    def _enum(self, part: Mapping[str, Any], space: str) -> Any:
        name, symbols = _full_name(part, space), list(part["symbols"])
        if all(map(_SYMBOL.match, symbols)) and len(set(symbols)) == len(symbols):
            return {"type": "enum", **_named(name), "symbols": symbols}
        self._replacements[name] = {"type": "int", "logicalType": f"{self._prefix}{ENUM}", SYMBOLS: symbols}
        return self._replacements[name]

    def _logic(self, part: Mapping[str, Any]) -> dict[str, Any]:
        name = logical_type(part)
        if name is None:
            return {}
        attributes = {key: part[key] for key in ("precision", "scale") if key in part and name == "decimal"}
        return {"logicalType": f"{self._prefix}{name}", **attributes}


def _named(name: str) -> dict[str, str]:
    """Return a full name as attributes; without a namespace it must not inherit the outer one."""
    return {"name": name} if "." in name else {"name": name, "namespace": ""}


def _full_name(part: Mapping[str, Any], space: str) -> str:
    name = part["name"]
    if not isinstance(name, str) or not name:
        raise ValueError(f"a name is not text: {name!r}")
    namespace = part.get("namespace", space)
    if "." in name or not isinstance(namespace, str) or not namespace:
        return name
    return f"{namespace}.{name}"
