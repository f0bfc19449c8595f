"""Converts Avro schemas to Arrow types, and plain data to values of these types.

| Avro | Arrow |
|---|---|
| boolean, int, long, float, double | bool, int32, int64, float32, float64 |
| bytes, string | binary, string |
| enum, fixed(n) | string, binary(n) |
| array, map, record | list, map with keys of text, struct |
| [null, X] | X, nullable |
| any other union | a struct with a nullable field for each branch, of which one is set; null: a null struct |
| date, time-*, timestamp-*, local-timestamp-* | date32, time, timestamp in UTC, timestamp |
| decimal, uuid | decimal, string |

An invalid logical type is ignored, as Avro's specification requires. Dates and timestamps that Python cannot
represent (the year 10000) are numbers in a record, and dates and timestamps in the column.
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
    """An Arrow type and the conversion of a value to it; ``None`` if the value needs none."""

    type: Any
    convert: Convert | None = None


class _Branch(NamedTuple):
    """A branch of a union: its name in the struct, its kind, and the fields of a record."""

    name: str
    kind: str
    column: Column
    fields: frozenset[str] | None = None


def column(schema: Any) -> Column:
    """Return the column of a schema parsed by fastavro. Raises ``ValueError`` if Parquet has no such type."""
    return _Compiler().column(schema)


class _Compiler:
    """Compiles one schema; remembers its named types."""

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
            return _Branch("array", "array", Column(pa.list_(items.type), _convert_items(items.convert)))
        if kind == "map":
            values = self.column(schema["values"])
            return _Branch(
                "map", "map", Column(pa.map_(pa.string(), values.type), _convert_pairs(values.convert))
            )
        if kind not in _PRIMITIVE and kind not in ("enum", "fixed"):
            return self._by_name(kind)
        leaf = _leaf(schema)
        if "name" in schema:
            self._named[schema["name"]] = (leaf.kind, leaf.column, None)
            return leaf._replace(name=_short(schema["name"]))
        return leaf

    def _by_name(self, name: str) -> _Branch:
        if name in _PRIMITIVE:
            return _Branch(name, name, Column(_PRIMITIVE[name]))
        if name in self._open:
            raise ValueError(f"the record {name} contains itself, which a table cannot represent")
        kind, known, fields = self._named[name]
        return _Branch(_short(name), kind, known, fields)

    def _record(self, schema: Any) -> _Branch:
        name = schema["name"]
        if not schema["fields"]:
            raise ValueError(f"the record {name} has no field, which Parquet cannot represent")
        self._open.add(name)
        columns = {field["name"]: self.column(field["type"]) for field in schema["fields"]}
        self._open.remove(name)
        nullable = {field["name"]: _takes_null(field["type"]) for field in schema["fields"]}
        kind = pa.struct([pa.field(key, part.type, nullable[key]) for key, part in columns.items()])
        record = Column(
            kind, _convert_fields({key: part.convert for key, part in columns.items() if part.convert})
        )
        fields = frozenset(columns)
        self._named[name] = ("record", record, fields)
        return _Branch(_short(name), "record", record, fields)

    def _union(self, schema: list[Any]) -> Column:
        branches = [self._branch(branch) for branch in schema if branch != "null"]
        if not branches:
            return Column(pa.null())
        if len(branches) == 1:
            only = branches[0].column
            return Column(only.type, only.convert and _unless_null(only.convert))
        names = [branch.name for branch in branches]
        if len(set(names)) < len(names):  # two namespaces have a type with that name
            branches = [branch._replace(name=f"{branch.name}_{n}") for n, branch in enumerate(branches)]
        return Column(
            pa.struct([(branch.name, branch.column.type) for branch in branches]), _choose_branch(branches)
        )


def _leaf(schema: Any) -> _Branch:
    kind, logical = schema["type"], logical_type(schema)
    if logical == "decimal":
        precision, scale = schema["precision"], schema.get("scale", 0)
        if precision > 76:
            raise ValueError(f"a decimal of {precision} digits; Parquet's readers take up to 76")
        decimal_type = pa.decimal128(precision, scale) if precision <= 38 else pa.decimal256(precision, scale)
        return _Branch("decimal", "decimal", Column(decimal_type))
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
"""Conversions to the stored numbers; Arrow rejects a column with both numbers and dates."""

_PRIMITIVE_NAME = {name: name.removesuffix("-millis").removesuffix("-micros") for name in _LOGICAL}


def _takes_null(schema: Any) -> bool:
    return schema == "null" or (isinstance(schema, list) and "null" in schema)


def _short(name: str) -> str:
    return name.rpartition(".")[2]


def _convert_items(convert: Convert | None) -> Convert | None:
    return convert and (lambda values: [convert(value) for value in values])


def _convert_pairs(convert: Convert | None) -> Convert:
    if convert is None:
        return lambda values: list(values.items())
    return lambda values: [(key, convert(value)) for key, value in values.items()]


def _convert_fields(converts: dict[str, Convert]) -> Convert | None:
    if not converts:
        return None

    def convert(value: Any) -> Any:
        return {**value, **{key: convert_field(value[key]) for key, convert_field in converts.items()}}

    return convert


def _unless_null(convert: Convert) -> Convert:
    return lambda value: None if value is None else convert(value)


def _choose_branch(branches: list[_Branch]) -> Convert:
    by_kind = {branch.kind: branch for branch in reversed(branches)}

    def branch_of(value: Any) -> _Branch:
        if isinstance(value, dict):
            keys = value.keys()
            named = (other for other in branches if other.fields is not None and other.fields == keys)
            branch = next(named, None) or by_kind.get("map")
        else:
            kinds = _KINDS.get(type(value), ())
            if type(value) is int and not any(kind in by_kind for kind in kinds):
                kinds = ("", *_NUMBERS)  # for example a date that Python cannot represent
            if type(value) is int and value not in _INT:
                kinds = kinds[1:]
            branch = next((by_kind[kind] for kind in kinds if kind in by_kind), None)
        if branch is None:
            raise ValueError(
                f"a {type(value).__name__} is not one of {', '.join(other.name for other in branches)}"
            )
        return branch

    def convert(value: Any) -> Any:
        if value is None:
            return None
        branch = branch_of(value)
        return {branch.name: branch.column.convert(value) if branch.column.convert else value}

    return convert
