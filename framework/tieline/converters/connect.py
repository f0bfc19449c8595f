"""Compile the JSON schemas of Kafka Connect's ``JsonConverter``, to read payloads, and to Avro. Pure.

Connect's logical types Decimal, Date, Time and Timestamp become Python's types. What Avro cannot express
becomes an attribute that begins with ``connect.``, as in Confluent's ``AvroData``. ``connect_writing`` writes
the original schema from it.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import decimal
import json
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from tieline.api import Schema
from tieline.converters import logical

DATA = "org.apache.kafka.connect.data."
DEFAULT_NAME = "ConnectDefault"
"""The name of a struct without one; further ones have a number after it."""

Read = Callable[[Any], Any]
"""Converts a payload to data. Raises ``ValueError`` with the path."""

_INTEGERS = {"int8": 8, "int16": 16, "int32": 32, "int64": 64}
_FLOATS = {"float": "float", "double": "double", "float32": "float", "float64": "double"}
_NOT_FINITE = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}
_KEPT = ("name", "version", "doc", "parameters")
_PRECISION = 64
"""The precision of a Decimal that does not state one, as in Confluent's ``AvroData``."""


class ConnectSchema(NamedTuple):
    """A compiled schema.

    ``schema`` is ``None`` if Avro cannot express it. ``has_decimals``: numbers must be read with all digits.
    """

    read: Read
    schema: Schema | None
    has_decimals: bool


def connect_schema(given: Any, *, replace_null: bool = True) -> ConnectSchema:
    """Compile the schema of an envelope. Raises ``ValueError``, ``RecursionError``.

    ``replace_null``: whether a null is read as the default of its field, if it has one.
    """
    compiler = _Compiler(replace_null)
    definition, read = compiler.part(given, "payload")
    try:
        schema = Schema.lenient(json.dumps(definition))
    except ValueError:  # such as names that Avro forbids; the data can be read without it
        schema = None
    return ConnectSchema(read, schema, compiler.has_decimals)


class _Compiler:
    def __init__(self, replace_null: bool) -> None:
        self.has_decimals = False
        self._replace_null = replace_null
        self._names: Counter[str] = Counter()

    def part(self, given: Any, where: str) -> tuple[Any, Read]:
        """Return Avro's type, and the function that reads the payload."""
        if not isinstance(given, dict) or not isinstance(given.get("type"), str):
            raise ValueError(f"{where}: its schema is not a Connect schema: {_short(given)}")
        definition, read = self._required(given, given["type"], where)
        optional = given.get("optional") is True
        has_default = given.get("default") is not None
        default = read(given["default"]) if has_default else None

        def read_or_null(value: Any) -> Any:
            if value is not None:
                return read(value)
            if has_default and self._replace_null:
                return default
            if optional:
                return None
            raise ValueError(f"{where}: is null, and its schema is not optional")

        return (["null", definition] if optional else definition), read_or_null

    def _required(self, given: Mapping[str, Any], kind: str, where: str) -> tuple[Any, Read]:
        if kind == "struct":
            return self._struct(given, where)
        extras = {f"connect.{name}": given[name] for name in _KEPT if given.get(name) is not None}
        if kind == "array":
            inner, read = self.part(given.get("items"), f"{where}[]")
            return {"type": "array", "items": inner, **extras}, _array(read, where)
        if kind == "map":
            return self._map(given, where, extras)
        compiled = self._logical(given, kind, where) or _plain(kind, where)
        if compiled is None:
            raise ValueError(f"{where}: Connect has no type {kind[:40]!r}")
        definition, read = compiled
        if extras:
            definition = {**({"type": definition} if isinstance(definition, str) else definition), **extras}
        return definition, read

    def _struct(self, given: Mapping[str, Any], where: str) -> tuple[Any, Read]:
        fields = given.get("fields")
        if not isinstance(fields, list):
            raise ValueError(f"{where}: a struct without fields")
        definitions, reads = [], []
        for field in fields:
            name = field.get("field") if isinstance(field, dict) else None
            if not isinstance(name, str):
                raise ValueError(f"{where}: a field without a name: {_short(field)}")
            definition, read = self.part(field, f"{where}.{name}")
            kept = {"connect.default": field["default"]} if field.get("default") is not None else {}
            definitions.append({"name": name, "type": definition, **kept})
            reads.append((name, read))
        extras = {f"connect.{name}": given[name] for name in _KEPT if given.get(name) is not None}
        return self._named(definitions, extras), _struct(reads, where)

    def _named(self, fields: list[Any], extras: dict[str, Any]) -> Any:
        """Return a record under its name, with a number after it if an earlier record has that name.

        An equal record is not referred to by name: inside a namespace, Avro cannot refer to a name without
        one.
        """
        given = extras.get("connect.name")
        base = given if isinstance(given, str) and given else DEFAULT_NAME
        name = base
        while name in self._names:
            self._names[base] += 1
            name = f"{base}_{self._names[base]}"
        self._names[name] += 1
        space = {} if "." in name else {"namespace": ""}
        return {"type": "record", "name": name, **space, "fields": fields, **extras}

    def _map(self, given: Mapping[str, Any], where: str, extras: dict[str, Any]) -> tuple[Any, Read]:
        keys = given.get("keys")
        key_definition, read_key = self.part(keys, f"{where} key")
        value_definition, read_value = self.part(given.get("values"), f"{where}{{}}")
        if isinstance(keys, dict) and keys.get("type") == "string":
            kept = {} if key_definition == "string" else {"connect.keys": keys}
            return {"type": "map", "values": value_definition, **kept, **extras}, _map(read_value, where)
        fields = [{"name": "key", "type": key_definition}, {"name": "value", "type": value_definition}]
        entry = self._named(fields, {"connect.name": "MapEntry"})
        return {"type": "array", "items": entry, "connect.type": "map", **extras}, _pairs(
            read_key, read_value, where
        )

    def _logical(self, given: Mapping[str, Any], kind: str, where: str) -> tuple[Any, Read] | None:
        name = given.get("name")
        if (name, kind) == (f"{DATA}Decimal", "bytes"):
            return self._decimal(given.get("parameters"), where)
        known = _LOGICAL.get((name, kind)) if isinstance(name, str) else None
        if known is None:
            return None
        base, avro_name, convert = known
        check = _integer(_INTEGERS[kind], where)
        return {"type": base, "logicalType": avro_name}, lambda value: convert(check(value))

    def _decimal(self, parameters: Any, where: str) -> tuple[Any, Read] | None:
        parameters = parameters if isinstance(parameters, dict) else {}
        try:
            scale = int(parameters["scale"])
        except (KeyError, TypeError, ValueError, OverflowError):
            return None  # bytes that claim to be a decimal
        precision = max(_PRECISION, scale)
        with contextlib.suppress(KeyError, TypeError, ValueError, OverflowError):  # it is optional
            precision = int(parameters["connect.decimal.precision"])
        self.has_decimals = True
        definition = {"type": "bytes", "logicalType": "decimal", "precision": precision, "scale": scale}
        to_bytes = _bytes(where)

        def read(value: Any) -> Any:
            if type(value) is decimal.Decimal:  # decimal.format=NUMERIC
                return value
            if type(value) is int or type(value) is float:
                return decimal.Decimal(repr(value))
            return logical.decimal_of(to_bytes(value), scale)

        return definition, read


_LOGICAL: Mapping[tuple[str, str], tuple[str, str, Callable[[int], Any]]] = {
    (f"{DATA}Date", "int32"): ("int", "date", logical.date),
    (f"{DATA}Time", "int32"): ("int", "time-millis", logical.time(1000)),
    (f"{DATA}Timestamp", "int64"): ("long", "timestamp-millis", logical.timestamp(logical.UTC, 1000)),
}


def _plain(kind: str, where: str) -> tuple[Any, Read] | None:
    if kind in _INTEGERS:
        bits = _INTEGERS[kind]
        base = "long" if bits == 64 else "int"
        definition = {"type": base, "connect.type": kind} if bits < 32 else base
        return definition, _integer(bits, where)
    if kind in _FLOATS:
        return _FLOATS[kind], _float(where)
    if kind == "boolean":
        return kind, _exactly(bool, "a boolean", where)
    if kind == "string":
        return kind, _exactly(str, "a string", where)
    return (kind, _bytes(where)) if kind == "bytes" else None


def _exactly(kind: type, name: str, where: str) -> Read:
    def read(value: Any) -> Any:
        if type(value) is not kind:
            raise ValueError(f"{where}: is not {name}: {_short(value)}")
        return value

    return read


def _integer(bits: int, where: str) -> Read:
    limit = 1 << (bits - 1)

    def read(value: Any) -> Any:
        if type(value) in (float, decimal.Decimal) and float(value).is_integer():
            value = int(float(value))  # 1.0
        if type(value) is not int or not -limit <= value < limit:
            raise ValueError(f"{where}: is not an integer of {bits} bits: {_short(value)}")
        return value

    return read


def _float(where: str) -> Read:
    def read(value: Any) -> Any:
        if type(value) is str and value in _NOT_FINITE:  # as Jackson writes them
            return _NOT_FINITE[value]
        if type(value) not in (float, int, decimal.Decimal):
            raise ValueError(f"{where}: is not a number: {_short(value)}")
        try:
            return float(value)
        except OverflowError:
            raise ValueError(f"{where}: is too large for a double") from None

    return read


def _bytes(where: str) -> Callable[[Any], bytes]:
    def read(value: Any) -> bytes:
        try:
            return base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError, TypeError):
            raise ValueError(
                f"{where}: is not base64, as which Connect writes bytes: {_short(value)}"
            ) from None

    return read


def _array(read_item: Read, where: str) -> Read:
    def read(value: Any) -> Any:
        if type(value) is not list:
            raise ValueError(f"{where}: is not an array: {_short(value)}")
        return [read_item(item) for item in value]

    return read


def _map(read_value: Read, where: str) -> Read:
    def read(value: Any) -> Any:
        if type(value) is not dict:
            raise ValueError(f"{where}: is not an object, as which Connect writes this map: {_short(value)}")
        return {key: read_value(item) for key, item in value.items()}

    return read


def _pairs(read_key: Read, read_value: Read, where: str) -> Read:
    """Return the reader of a map whose keys are not strings: Connect writes pairs, Avro has records."""

    def read(value: Any) -> Any:
        if type(value) is not list or any(type(pair) is not list or len(pair) != 2 for pair in value):
            raise ValueError(
                f"{where}: is not an array of pairs, as which Connect writes this map: {_short(value)}"
            )
        return [{"key": read_key(key), "value": read_value(item)} for key, item in value]

    return read


def _struct(reads: list[tuple[str, Read]], where: str) -> Read:
    def read(value: Any) -> Any:
        if type(value) is not dict:
            raise ValueError(f"{where}: is not an object, as which Connect writes a struct: {_short(value)}")
        return {name: read_field(value.get(name)) for name, read_field in reads}

    return read


def _short(value: Any) -> str:
    text = repr(value) if not isinstance(value, (dict, list)) else type(value).__name__
    return text if len(text) <= 60 else f"{text[:60]}…"
