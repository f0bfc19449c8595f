"""Check values against a schema by their exact type, and choose the branches of unions.

fastavro accepts more than it should, and reports nothing. It takes the first branch of a union that might
fit, so it writes 2**63 into ``["long", "double"]`` as a double. It writes 1.5 into a long as 1, and leaves
out fields that a schema does not have.

Here the type decides. A bool is a boolean, an int an int or long in whose range it is, a float a double or
float. A str is a string or enum, bytes are bytes or fixed, a list is an array. A dict is the record with
exactly its fields (in a union the first such branch), or else a map. Outside unions a double takes an int
that it represents exactly. ``logical_writing`` converts values of logical types. Every other value raises an
error with its path. fastavro receives a union's value as the tuple ``(branch, value)``.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from tieline.api import RecordError
from tieline.converters.logical_writing import logical_writing

Tagger = Callable[[Any], Any]
"""Converts plain data to what fastavro writes. Raises ``ValueError`` with the path."""


class _Part(NamedTuple):
    """The tagger of a schema inside another, and the types of values that need no call of it.

    Most values have one of these types, and calls are slow.
    """

    tag: Tagger
    plain: type | None = None
    """A value of this type is written unchanged."""
    branch_of: Mapping[type, str] = {}
    """A value of one of these types is written unchanged, as this branch of the union."""


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
_CHECKED_BY_CHOICE = _EXACT.keys() - {"float"}  # the choice of such a branch has checked the value
_PLAIN = {type(None): "null", bool: "boolean", float: "double", str: "string", bytes: "bytes"}
"""Types that determine the branch, whatever the value."""
_FLOAT_MAX = 3.4028235677973366e38  # the smallest number that a float of 4 bytes rounds to infinity
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
    """Return the tagger of a schema that fastavro has parsed."""
    return _Compiler().part(parsed, "value").tag


class _Compiler:
    """Compiles a schema in one pass. It remembers named types, since they may refer to themselves."""

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
        # A recursive record: its tagger exists once the whole schema is compiled.
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
            inner[name] = _unchanged if kind in _CHECKED_BY_CHOICE and writing is None else tagger
            for python_type in writing[1] if writing else ():
                logical.setdefault(python_type, []).append(name)
        by_kind = {kind: name for name, kind, _ in reversed(kinds)}
        by_type = {
            python_type: [by_kind[kind] for kind in wanted if kind in by_kind]
            for python_type, wanted in _BY_TYPE.items()
        }
        choose = _branch_chooser(kinds, by_type, logical, where)

        def tag(value: Any) -> Any:
            name = choose(value)
            return name, inner[name](value)

        plain = {} if logical else {k: by_kind[kind] for k, kind in _PLAIN.items() if kind in by_kind}
        return _Part(tag, branch_of=plain)

    def _kind(self, branch: Any) -> tuple[str, str, frozenset[str]]:
        """Return fastavro's name of a branch, the branch's kind, and its fields if it is a record."""
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
    """Return a function from a value to the name of its branch. It raises ``ValueError`` if none fits."""
    all_names = [name for name, _, _ in kinds]
    map_name = next((name for name, kind, _ in kinds if kind == "map"), None)
    records = [(name, fields) for name, kind, fields in kinds if kind == "record"]

    def choose(value: Any) -> str:
        python_type = type(value)
        if python_type is int:
            for name in by_type[int]:
                low, high = _RANGES[name]
                if low <= value <= high:
                    return name
            raise _mismatch(
                where, f"the integer {value} fits no branch of {all_names}", f"one of {all_names}"
            )
        if python_type is dict:
            keys = value.keys()
            for name, fields in records:
                if keys == fields:
                    return name
            if map_name is not None:
                return map_name
        names = by_type.get(python_type) or logical.get(python_type)
        if names:
            return names[0]
        raise _mismatch(where, f"no branch for {python_type.__name__} in {all_names}", f"one of {all_names}")

    return choose


def _mismatch(where: str, problem: str, expected: str = "") -> RecordError:
    """Return the error about a value that does not fit; ``where`` is the path in the schema."""
    return RecordError(
        f"{where}: {problem}",
        field=where,
        expected=expected,
        fix="Repair the record or what writes it, or change the schema",
    )


def _unchanged(value: Any) -> Any:
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
            raise _mismatch(where, str(error)) from None
        return plain.tag(stored)

    return _Part(tag)


def _plain_leaf(kind: str, where: str) -> _Part:
    exact = _EXACT[kind]
    first, last = exact[0], exact[-1]
    low, high = _RANGES.get(kind, (0, 0))

    def check(value: Any) -> Any:
        if type(value) is not first and type(value) is not last:
            raise _mismatch(where, f"is a {kind}, not {type(value).__name__}", f"a {kind}")
        return value

    def check_integer(value: Any) -> Any:
        if type(check(value)) is int and not low <= value <= high:
            raise _mismatch(where, f"the integer {value} is out of the range of {kind}", f"a {kind}")
        return value

    def check_float(value: Any) -> Any:
        if type(value) is float:
            if kind == "float" and math.isfinite(value) and abs(value) >= _FLOAT_MAX:
                raise _mismatch(where, f"{value} is too large for a float")
            return value
        if type(check(value)) is int and (abs(value) >= _LONG or int(_to_float(value, kind)) != value):
            raise _mismatch(where, f"the integer {value} would be rounded by a {kind}")
        return value

    tag = check_integer if kind in _RANGES else check_float if kind in ("float", "double") else check
    return _Part(tag, None if kind in _RANGES or kind == "float" else first)


_LONG = 2**63


def _to_float(value: int, kind: str) -> float:
    number: float = float(value) if kind == "double" else struct.unpack("f", struct.pack("f", value))[0]
    return number


def _fields(record: str, parts: Mapping[str, _Part]) -> Tagger:
    names = parts.keys()
    fields = [(name, *part) for name, part in parts.items()]

    def tag(value: Any) -> Any:
        if type(value) is not dict:
            raise _mismatch(record, f"is a record, which is a dict here, not {type(value).__name__}")
        if not value.keys() <= names:
            raise _mismatch(record, f"has no field {', '.join(sorted(map(str, value.keys() - names)))}")
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
            raise _mismatch(where, f"is a map, which is a dict here, not {type(value).__name__}")
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
            raise _mismatch(where, f"is an array, which is a list here, not {type(value).__name__}")
        return [tagger(item) for item in value]

    return tag
