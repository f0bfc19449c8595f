"""What an Avro schema becomes in Arrow, and the plain data that is true to it.

| Avro | Arrow |
|---|---|
| boolean, int, long, float, double | bool, int32, int64, float32, float64 |
| bytes, string | binary, string |
| enum, fixed(n) | string, binary(n) |
| array, map, record | list, map with keys of text, struct |
| [null, X] | X, nullable |
| any other union | a struct with a nullable field a branch, of which one is set; null: a null struct |
| date, time-*, timestamp-*, local-timestamp-* | date32, time, timestamp in UTC, timestamp |
| decimal, uuid | decimal, string |

A logical type that is invalid where it stands is ignored, as Avro's specification says. Dates and timestamps
that Python has no place for (the year 10000) are numbers in a record, and what they are in the column.
"""

from __future__ import annotations

import datetime
import decimal
import uuid
from collections.abc import Callable
from typing import Any, NamedTuple

import pyarrow as pa

from tieline.api.readable import logical_type

Convert = Callable[[Any], Any]

_PRIMITIVE: dict[str, Any] = {
    "null": pa.null(),
    "boolean": pa.bool_(),
    "int": pa.int32(),
    "long": pa.int64(),
    "float": pa.float32(),
    "double": pa.float64(),
    "bytes": pa.binary(),
    "string": pa.string(),
}
_LOGICAL: dict[str, Any] = {
    "date": pa.date32(),
    "time-millis": pa.time32("ms"),
    "time-micros": pa.time64("us"),
    "timestamp-millis": pa.timestamp("ms", "UTC"),
    "timestamp-micros": pa.timestamp("us", "UTC"),
    "local-timestamp-millis": pa.timestamp("ms"),
    "local-timestamp-micros": pa.timestamp("us"),
}
_KINDS: dict[type, tuple[str, ...]] = {
    bool: ("boolean",),
    int: ("int", "long", "double", "float"),
    float: ("double", "float"),
    str: ("string", "enum", "uuid"),
    bytes: ("bytes", "fixed"),
    list: ("array",),
    datetime.datetime: ("timestamp", "local-timestamp"),
    datetime.date: ("date",),
    datetime.time: ("time",),
    decimal.Decimal: ("decimal",),
    uuid.UUID: ("uuid",),
}
_INT = range(-(2**31), 2**31)


class Column(NamedTuple):
    """An Arrow type, and what makes a value ready for it; none: it is as it stands."""

    type: Any
    convert: Convert | None = None


class _Branch(NamedTuple):
    """One of a union: its name in the struct, what it is, the fields of a record."""

    name: str
    kind: str
    column: Column
    fields: frozenset[str] | None = None


def column(schema: Any) -> Column:
    """For a schema as fastavro has parsed it. Raises ``ValueError`` where Parquet has nothing like it."""
    return _Compiler().column(schema)


class _Compiler:
    """One pass over a schema; remembers its named types."""

    def __init__(self) -> None:
        self._named: dict[str, tuple[str, Column, frozenset[str] | None]] = {}
        self._open: set[str] = set()

    def column(self, schema: Any) -> Column:
        return self._union(schema) if isinstance(schema, list) else self._branch(schema).column

    def _branch(self, schema: Any) -> _Branch:
        if isinstance(schema, str):
            return self._by_name(schema)
        kind = schema["type"]
        if isinstance(kind, (dict, list)):
            return _Branch("value", "", self.column(kind))
        if kind in ("record", "error"):
            return self._record(schema)
        if kind == "array":
            items = self.column(schema["items"])
            return _Branch("array", "array", Column(pa.list_(items.type), _each(items.convert)))
        if kind == "map":
            values = self.column(schema["values"])
            return _Branch("map", "map", Column(pa.map_(pa.string(), values.type), _pairs(values.convert)))
        if kind not in _PRIMITIVE and kind not in ("enum", "fixed"):
            return self._by_name(kind)
        found = _leaf(schema)
        if "name" in schema:
            self._named[schema["name"]] = (found.kind, found.column, None)
            return found._replace(name=_short(schema["name"]))
        return found

    def _by_name(self, name: str) -> _Branch:
        if name in _PRIMITIVE:
            return _Branch(name, name, Column(_PRIMITIVE[name]))
        if name in self._open:
            raise ValueError(f"the record {name} is inside itself, which no table can hold")
        kind, known, fields = self._named[name]
        return _Branch(_short(name), kind, known, fields)

    def _record(self, schema: Any) -> _Branch:
        name = schema["name"]
        if not schema["fields"]:
            raise ValueError(f"the record {name} has no field, which Parquet cannot hold")
        self._open.add(name)
        inside = {field["name"]: self.column(field["type"]) for field in schema["fields"]}
        self._open.remove(name)
        nullable = {field["name"]: _takes_null(field["type"]) for field in schema["fields"]}
        kind = pa.struct([pa.field(key, part.type, nullable[key]) for key, part in inside.items()])
        made = Column(kind, _fields({key: part.convert for key, part in inside.items() if part.convert}))
        fields = frozenset(inside)
        self._named[name] = ("record", made, fields)
        return _Branch(_short(name), "record", made, fields)

    def _union(self, schema: list[Any]) -> Column:
        branches = [self._branch(branch) for branch in schema if branch != "null"]
        if not branches:
            return Column(pa.null())
        if len(branches) == 1:
            only = branches[0].column
            return Column(only.type, only.convert and _unless_null(only.convert))
        names = [branch.name for branch in branches]
        if len(set(names)) < len(names):  # two namespaces have a type of that name
            branches = [branch._replace(name=f"{branch.name}_{n}") for n, branch in enumerate(branches)]
        return Column(
            pa.struct([(branch.name, branch.column.type) for branch in branches]), _chosen(branches)
        )


def _leaf(schema: Any) -> _Branch:
    kind, logical = schema["type"], logical_type(schema)
    if logical == "decimal":
        precision, scale = schema["precision"], schema.get("scale", 0)
        if precision > 76:
            raise ValueError(f"a decimal of {precision} digits; Parquet's readers take up to 76")
        made = pa.decimal128(precision, scale) if precision <= 38 else pa.decimal256(precision, scale)
        return _Branch("decimal", "decimal", Column(made))
    if logical == "uuid" and kind in ("string", "fixed"):
        return _Branch("uuid", "uuid", Column(pa.string(), str))
    if logical in _LOGICAL:
        name = _PRIMITIVE_NAME[logical]
        unit = 1000 if logical.endswith("-millis") else 1
        return _Branch(name, name, Column(_LOGICAL[logical], _NUMBERS[name](unit)))
    if kind == "enum":
        return _Branch("enum", "enum", Column(pa.string()))
    if kind == "fixed":
        return _Branch("fixed", "fixed", Column(pa.binary(schema["size"])))
    return _Branch(kind, kind, Column(_PRIMITIVE[kind]))


def _days(_: int) -> Convert:
    return lambda value: value.toordinal() - _DAY_ONE if isinstance(value, datetime.date) else value


def _since_midnight(unit: int) -> Convert:
    def convert(value: Any) -> Any:
        if not isinstance(value, datetime.time):
            return value
        seconds = (value.hour * 60 + value.minute) * 60 + value.second
        return (seconds * 1_000_000 + value.microsecond) // unit

    return convert


def _since_1970(unit: int) -> Convert:
    unit_of_time = datetime.timedelta(microseconds=unit)

    def convert(value: Any) -> Any:
        if not isinstance(value, datetime.datetime):
            return value
        return (value - (_EPOCH if value.tzinfo is None else _UTC)) // unit_of_time

    return convert


_EPOCH = datetime.datetime(1970, 1, 1)
_UTC = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)
_DAY_ONE = _EPOCH.toordinal()
_NUMBERS: dict[str, Callable[[int], Convert]] = {
    "date": _days,
    "time": _since_midnight,
    "timestamp": _since_1970,
    "local-timestamp": _since_1970,
}
"""To the numbers that are stored: Arrow takes no column in which some are numbers and some are not."""

_PRIMITIVE_NAME = {name: name.removesuffix("-millis").removesuffix("-micros") for name in _LOGICAL}


def _takes_null(schema: Any) -> bool:
    return schema == "null" or (isinstance(schema, list) and "null" in schema)


def _short(name: str) -> str:
    return name.rpartition(".")[2]


def _each(convert: Convert | None) -> Convert | None:
    return convert and (lambda values: [convert(value) for value in values])


def _pairs(convert: Convert | None) -> Convert:
    if convert is None:
        return lambda values: list(values.items())
    return lambda values: [(key, convert(value)) for key, value in values.items()]


def _fields(converts: dict[str, Convert]) -> Convert | None:
    if not converts:
        return None

    def convert(value: Any) -> Any:
        return {**value, **{key: each(value[key]) for key, each in converts.items()}}

    return convert


def _unless_null(convert: Convert) -> Convert:
    return lambda value: None if value is None else convert(value)


def _chosen(branches: list[_Branch]) -> Convert:
    by_kind = {branch.kind: branch for branch in reversed(branches)}

    def branch_of(value: Any) -> _Branch:
        if isinstance(value, dict):
            keys = value.keys()
            named = (branch for branch in branches if branch.fields is not None and branch.fields == keys)
            found = next(named, None) or by_kind.get("map")
        else:
            kinds = _KINDS.get(type(value), ())
            if type(value) is int and not any(kind in by_kind for kind in kinds):
                kinds = ("", *_NUMBERS)  # a date, say, that Python has no place for
            if type(value) is int and value not in _INT:
                kinds = kinds[1:]
            found = next((by_kind[kind] for kind in kinds if kind in by_kind), None)
        if found is None:
            raise ValueError(
                f"a {type(value).__name__} is none of {', '.join(each.name for each in branches)}"
            )
        return found

    def convert(value: Any) -> Any:
        if value is None:
            return None
        branch = branch_of(value)
        return {branch.name: branch.column.convert(value) if branch.column.convert else value}

    return convert
