"""Which branch of an Avro union a value takes: decided here by exact type, never guessed.

fastavro takes the first branch that a value could be squeezed into, and so writes 2**63 into
``["long", "double"]`` as a double without a word. Here bool is boolean, int is int or long if it fits
in them, float is double or float, str is string (or an enum), bytes is bytes (or fixed), list is array,
dict is the record with exactly these fields, else map; anything else is an error that names the field.
What is found is handed to fastavro as its ``(branch, value)`` tuple.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Tagger = Callable[[Any], Any]
"""Plain data to what fastavro writes; raises ``ValueError`` that names the place."""

_PRIMITIVES = {"null", "boolean", "int", "long", "float", "double", "bytes", "string"}
_RANGES = {"int": (-(2**31), 2**31 - 1), "long": (-(2**63), 2**63 - 1)}
_BY_TYPE: dict[type, tuple[str, ...]] = {
    type(None): ("null",),
    bool: ("boolean",),
    int: ("int", "long"),
    float: ("double", "float"),
    str: ("string", "enum"),
    bytes: ("bytes", "fixed"),
    list: ("array",),
    tuple: ("array",),
}


def compile_tagger(parsed: Any) -> Tagger | None:
    """The tagger of a schema parsed by fastavro; none where the schema has no union in it."""
    return _Compiler().tagger(parsed, "value")


class _Compiler:
    """One pass over a schema; remembers named types, which may refer to themselves."""

    def __init__(self) -> None:
        self._named: dict[str, Any] = {}
        self._taggers: dict[str, Tagger | None] = {}

    def tagger(self, schema: Any, where: str) -> Tagger | None:
        if isinstance(schema, list):
            return self._union(schema, where)
        if isinstance(schema, str):
            return None if schema in _PRIMITIVES else self._reference(schema)
        kind = schema["type"]
        if isinstance(kind, (dict, list)):
            return self.tagger(kind, where)
        if kind in ("record", "error"):
            return self._record(schema)
        if kind == "array":
            return _each(self.tagger(schema["items"], f"{where}[]"))
        if kind == "map":
            return _values(self.tagger(schema["values"], f"{where}{{}}"))
        if "name" in schema:
            self._named[schema["name"]] = schema
        return None

    def _reference(self, name: str) -> Tagger | None:
        if name in self._taggers:
            return self._taggers[name]
        if self._named[name]["type"] in ("enum", "fixed"):
            return None

        def later(value: Any) -> Any:  # a record inside itself: its tagger exists once the compiling is done
            tagger = self._taggers.get(name)
            return value if tagger is None else tagger(value)

        return later

    def _record(self, schema: Any) -> Tagger | None:
        name = schema["name"]
        self._named[name] = schema
        inner = [
            (field["name"], tagger)
            for field in schema["fields"]
            if (tagger := self.tagger(field["type"], f"{name}.{field['name']}"))
        ]
        tagger = _fields(inner) if inner else None
        self._taggers[name] = tagger
        return tagger

    def _union(self, branches: list[Any], where: str) -> Tagger:
        kinds = [self._kind(branch) for branch in branches]
        inner = {
            name: self.tagger(branch, where) for (name, _, _), branch in zip(kinds, branches, strict=True)
        }
        by_kind = {kind: name for name, kind, _ in reversed(kinds)}
        by_type = {
            kind_of: [by_kind[kind] for kind in wanted if kind in by_kind]
            for kind_of, wanted in _BY_TYPE.items()
        }
        records = [(name, fields) for name, kind, fields in kinds if kind == "record"]
        logical = [
            name
            for (name, _, _), branch in zip(kinds, branches, strict=True)
            if isinstance(branch, dict) and "logicalType" in branch
        ]

        def choose(value: Any) -> str:
            kind_of = type(value)
            if kind_of is int:
                for name in by_type[int]:
                    low, high = _RANGES[name]
                    if low <= value <= high:
                        return name
                raise ValueError(f"{where}: the integer {value} fits no branch of {[n for n, _, _ in kinds]}")
            if kind_of is dict:
                keys = value.keys()
                for name, fields in records:
                    if keys == fields:
                        return name
                if "map" in by_kind:
                    return by_kind["map"]
            names = by_type.get(kind_of)
            if names:
                return names[0]
            if len(logical) == 1:  # a datetime, a Decimal, a UUID: only one branch can be meant
                return logical[0]
            raise ValueError(f"{where}: no branch for {kind_of.__name__} in {[n for n, _, _ in kinds]}")

        def tag(value: Any) -> Any:
            name = choose(value)
            tagger = inner[name]
            return (name, value if tagger is None else tagger(value))

        return tag

    def _kind(self, branch: Any) -> tuple[str, str, frozenset[str]]:
        """The name by which fastavro knows a branch, its kind, and the fields if it is a record."""
        definition = self._named.get(branch, branch) if isinstance(branch, str) else branch
        if isinstance(definition, str):
            return definition, definition, frozenset()
        kind = definition["type"]
        fields = frozenset(f["name"] for f in definition.get("fields", ()))
        return definition.get("name", kind), "record" if kind == "error" else kind, fields


def _fields(inner: list[tuple[str, Tagger]]) -> Tagger:
    def tag(value: Any) -> Any:
        if not isinstance(value, dict):
            raise ValueError(f"a record is a dictionary, not {type(value).__name__}")
        tagged = dict(value)
        for name, tagger in inner:
            if name in tagged:
                tagged[name] = tagger(tagged[name])
        return tagged

    return tag


def _values(tagger: Tagger | None) -> Tagger | None:
    if tagger is None:
        return None
    return lambda value: {key: tagger(item) for key, item in value.items()}


def _each(tagger: Tagger | None) -> Tagger | None:
    if tagger is None:
        return None
    return lambda value: [tagger(item) for item in value]
