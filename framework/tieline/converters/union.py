"""What a value must be to be written by a schema, decided here by exact type, never guessed.

fastavro squeezes: it takes the first union branch that might fit, and so writes 2**63 into
``["long", "double"]`` as a double, 1.5 into a long as 1, and leaves out fields that a schema does not
have, all without a word. Here bool is boolean, int is int or long if it fits in them, float is double or
float, str is string (or an enum), bytes is bytes (or fixed), list is array, dict is the record with
exactly these fields (the first such branch of a union), else map; an int is written into a double only
where no union offers anything else and nothing is lost. A logical type is written as
``logical_writing`` says. Anything else is an error that names the place.
A union's branch is handed to fastavro as its ``(branch, value)`` tuple.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from tieline.converters.logical_writing import logical_writing

Tagger = Callable[[Any], Any]
"""Plain data to what fastavro writes; raises ``ValueError`` that names the place."""


class _Part(NamedTuple):
    """A schema inside another: its tagger, and what needs no call of it (most values; calls are dear)."""

    tag: Tagger
    plain: type | None = None
    """A value of this type is written as it is."""
    branch_of: Mapping[type, str] = {}
    """A value of one of these types is written as this branch of the union."""


_EXACT: dict[str, tuple[type, ...]] = {
    "null": (type(None),),
    "boolean": (bool,),
    "int": (int,),
    "long": (int,),
    "float": (float, int),
    "double": (float, int),
    "bytes": (bytes,),
    "string": (str,),
    "enum": (str,),
    "fixed": (bytes,),
}
_RANGES = {"int": (-(2**31), 2**31 - 1), "long": (-(2**63), 2**63 - 1)}
_CHOSEN = _EXACT.keys() - {"float"}  # choosing the branch has checked all there is
_PLAIN = {type(None): "null", bool: "boolean", float: "double", str: "string", bytes: "bytes"}
"""Types whose branch is known without a look at the value."""
_FLOAT_MAX = 3.4028235677973366e38  # from here on a float of 4 bytes is infinite
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


def compile_tagger(parsed: Any) -> Tagger:
    """The tagger of a schema parsed by fastavro."""
    return _Compiler().part(parsed, "value").tag


class _Compiler:
    """One pass over a schema; remembers named types, which may refer to themselves."""

    def __init__(self) -> None:
        self._named: dict[str, Any] = {}
        self._taggers: dict[str, Tagger] = {}

    def part(self, schema: Any, where: str) -> _Part:
        if isinstance(schema, list):
            return self._union(schema, where)
        if isinstance(schema, str):
            return _leaf(schema, where) if schema in _EXACT else self._reference(schema, where)
        kind = schema["type"]
        if isinstance(kind, (dict, list)):
            return self.part(kind, where)
        if kind in ("record", "error"):
            return _Part(self._record(schema))
        if kind == "array":
            return _Part(_each(self.part(schema["items"], f"{where}[]").tag, where))
        if kind == "map":
            return _Part(_values(self.part(schema["values"], f"{where}{{}}"), where))
        if "name" in schema:
            self._named[schema["name"]] = schema
        return _leaf(schema, where)

    def _reference(self, name: str, where: str) -> _Part:
        if name in self._taggers:
            return _Part(self._taggers[name])
        if self._named[name]["type"] in ("enum", "fixed"):
            return _leaf(self._named[name], where)
        # a record inside itself: its tagger exists once the compiling is done
        return _Part(lambda value: self._taggers[name](value))

    def _record(self, schema: Any) -> Tagger:
        name = schema["name"]
        self._named[name] = schema
        fields = {
            field["name"]: self.part(field["type"], f"{name}.{field['name']}") for field in schema["fields"]
        }
        tagger = self._taggers[name] = _fields(name, fields)
        return tagger

    def _union(self, branches: list[Any], where: str) -> _Part:
        kinds = [self._kind(branch) for branch in branches]
        inner = {}
        logical: dict[type, list[str]] = {}
        for (name, kind, _), branch in zip(kinds, branches, strict=True):
            tagger = self.part(branch, where).tag
            writing = logical_writing(self._named.get(branch, branch) if isinstance(branch, str) else branch)
            inner[name] = _as_it_is if kind in _CHOSEN and writing is None else tagger
            for kind_of in writing[1] if writing else ():
                logical.setdefault(kind_of, []).append(name)
        by_kind = {kind: name for name, kind, _ in reversed(kinds)}
        by_type = {
            kind_of: [by_kind[kind] for kind in wanted if kind in by_kind]
            for kind_of, wanted in _BY_TYPE.items()
        }
        choose = _branch_chooser(kinds, by_type, logical, where)

        def tag(value: Any) -> Any:
            name = choose(value)
            return name, inner[name](value)

        plain = {} if logical else {k: by_kind[kind] for k, kind in _PLAIN.items() if kind in by_kind}
        return _Part(tag, branch_of=plain)

    def _kind(self, branch: Any) -> tuple[str, str, frozenset[str]]:
        """The name by which fastavro knows a branch, its kind, and the fields if it is a record."""
        definition = self._named.get(branch, branch) if isinstance(branch, str) else branch
        if isinstance(definition, str):
            return definition, definition, frozenset()
        kind = definition["type"]
        fields = frozenset(f["name"] for f in definition.get("fields", ()))
        return definition.get("name", kind), "record" if kind == "error" else kind, fields


def _branch_chooser(
    kinds: list[tuple[str, str, frozenset[str]]],
    by_type: Mapping[type, list[str]],
    logical: Mapping[type, list[str]],
    where: str,
) -> Callable[[Any], str]:
    """Return a function from a value to the name of its branch, which raises ``ValueError`` without one."""
    all_names = [name for name, _, _ in kinds]
    map_name = next((name for name, kind, _ in kinds if kind == "map"), None)
    records = [(name, fields) for name, kind, fields in kinds if kind == "record"]

    def choose(value: Any) -> str:
        kind_of = type(value)
        if kind_of is int:
            for name in by_type[int]:
                low, high = _RANGES[name]
                if low <= value <= high:
                    return name
            raise ValueError(f"{where}: the integer {value} fits no branch of {all_names}")
        if kind_of is dict:
            keys = value.keys()
            for name, fields in records:
                if keys == fields:
                    return name
            if map_name is not None:
                return map_name
        names = by_type.get(kind_of) or logical.get(kind_of)
        if names:
            return names[0]
        raise ValueError(f"{where}: no branch for {kind_of.__name__} in {all_names}")

    return choose


def _as_it_is(value: Any) -> Any:
    return value


def _leaf(schema: Any, where: str) -> _Part:
    kind = schema if isinstance(schema, str) else schema["type"]
    plain = _plain_leaf(kind, where)
    logical = logical_writing(schema)
    if logical is None:
        return plain
    write, _ = logical

    def tag(value: Any) -> Any:
        try:
            stored = write(value)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None
        return plain.tag(stored)

    return _Part(tag)


def _plain_leaf(kind: str, where: str) -> _Part:
    exact = _EXACT[kind]
    first, last = exact[0], exact[-1]
    low, high = _RANGES.get(kind, (0, 0))

    def check(value: Any) -> Any:
        if type(value) is not first and type(value) is not last:
            raise ValueError(f"{where}: is a {kind}, not {type(value).__name__}")
        return value

    def whole(value: Any) -> Any:
        if type(check(value)) is int and not low <= value <= high:
            raise ValueError(f"{where}: the integer {value} is no {kind}")
        return value

    def number(value: Any) -> Any:
        if type(value) is float:
            if kind == "float" and math.isfinite(value) and abs(value) >= _FLOAT_MAX:
                raise ValueError(f"{where}: {value} is too large for a float")
            return value
        if type(check(value)) is int and (abs(value) >= _LONG or int(_narrowed(value, kind)) != value):
            raise ValueError(f"{where}: the integer {value} would be rounded by a {kind}")
        return value

    tag = whole if kind in _RANGES else number if kind in ("float", "double") else check
    return _Part(tag, None if kind in _RANGES or kind == "float" else first)


_LONG = 2**63


def _narrowed(value: int, kind: str) -> float:
    number: float = float(value) if kind == "double" else struct.unpack("f", struct.pack("f", value))[0]
    return number


def _fields(record: str, parts: Mapping[str, _Part]) -> Tagger:
    names = parts.keys()
    fields = [(name, *part) for name, part in parts.items()]

    def tag(value: Any) -> Any:
        if type(value) is not dict:
            raise ValueError(f"{record}: is a record, which is a dict here, not {type(value).__name__}")
        if not value.keys() <= names:
            raise ValueError(f"{record}: has no field {', '.join(sorted(map(str, value.keys() - names)))}")
        out = {}
        for name, tagger, plain, branch_of in fields:
            if name in value:
                item = value[name]
                kind = type(item)
                if kind is plain:
                    out[name] = item
                else:
                    out[name] = (branch_of[kind], item) if kind in branch_of else tagger(item)
        return out

    return tag


def _values(part: _Part, where: str) -> Tagger:
    tagger, plain, branch_of = part

    def tag(value: Any) -> Any:
        if type(value) is not dict:
            raise ValueError(f"{where}: is a map, which is a dict here, not {type(value).__name__}")
        kinds = set(map(type, value.values()))
        if kinds <= {plain}:
            return value
        if kinds <= branch_of.keys():
            return {key: (branch_of[type(item)], item) for key, item in value.items()}
        return {key: tagger(item) for key, item in value.items()}

    return tag


def _each(tagger: Tagger, where: str) -> Tagger:
    def tag(value: Any) -> Any:
        if type(value) is not list and type(value) is not tuple:
            raise ValueError(f"{where}: is an array, which is a list here, not {type(value).__name__}")
        return [tagger(item) for item in value]

    return tag
