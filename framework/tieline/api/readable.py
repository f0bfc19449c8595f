"""An Avro schema without what reading does not need; pure.

The Avro specification (1.11) tells readers to ignore a logical type that is invalid, and old schemas carry
defaults, aliases and symbols that a strict parser refuses. The data that they describe can be read all the
same: bytes are told apart by types, order, sizes and the number of symbols alone.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

ENUM = "enum"
"""The logical type, behind the prefix, of an enum whose symbols are no names: an int with its symbols."""

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
    """The same schema with nothing in it but what reading needs.

    ``prefix``: in front of the name of each logical type, to be read by functions of one's own. Raises
    ``ValueError``, ``KeyError`` or ``TypeError`` on what is no schema.
    """
    return _Reduced(prefix).schema(definition, "")


def logical_type(schema: Mapping[str, Any]) -> str | None:
    """The logical type of a schema, if it is valid there."""
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
    """One pass over a schema; what stands for a named type is remembered under its full name."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._instead: dict[str, Any] = {}

    def schema(self, part: Any, space: str) -> Any:
        if isinstance(part, list):
            return [self.schema(branch, space) for branch in part]
        if isinstance(part, str):
            return self._instead.get(part if "." in part or not space else f"{space}.{part}", part)
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
        self._instead[name] = {"type": "int", "logicalType": f"{self._prefix}{ENUM}", SYMBOLS: symbols}
        return self._instead[name]

    def _logic(self, part: Mapping[str, Any]) -> dict[str, Any]:
        name = logical_type(part)
        if name is None:
            return {}
        more = {key: part[key] for key in ("precision", "scale") if key in part and name == "decimal"}
        return {"logicalType": f"{self._prefix}{name}", **more}


def _named(name: str) -> dict[str, str]:
    """A full name as attributes; one without a namespace must not get that of the schema around it."""
    return {"name": name} if "." in name else {"name": name, "namespace": ""}


def _full_name(part: Mapping[str, Any], space: str) -> str:
    name = part["name"]
    if not isinstance(name, str) or not name:
        raise ValueError(f"a name that is no text: {name!r}")
    own = part.get("namespace", space)
    return name if "." in name or not isinstance(own, str) or not own else f"{own}.{name}"
