"""Parse an Avro schema from its text into a tree of types, as leniently as readers parse it. Pure.

What parsing does not need is not checked here: the form of names, defaults, logical types, unknown
attributes. ``avro_rules`` checks these for new schemas. Parsing takes time proportional to the schema's
length.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable
from typing import Any, NamedTuple

from tieline.registry.model.avro_text import text_of
from tieline.registry.model.avro_types import (
    NAMED,
    NO_DEFAULT,
    PRIMITIVES,
    AvroType,
    Field,
    InvalidSchemaError,
    shorten,
)
from tieline.registry.model.budget import Budget, current_budget

MAX_DEPTH = 200
"""Types inside types. Only an attacker writes deeper ones, and they would overflow the stack."""
_MAX_LENGTH = 2_147_483_639  # of an array in Java
_TYPE_ATTRIBUTES = frozenset(
    ("doc", "fields", "items", "name", "namespace", "size", "symbols", "values", "type", "aliases")
)
_ENUM_ATTRIBUTES = _TYPE_ATTRIBUTES | {"default"}
_FIELD_ATTRIBUTES = frozenset(("default", "doc", "name", "order", "type", "aliases"))
_PLAIN = {kind: AvroType(kind) for kind in PRIMITIVES}


class Tree(NamedTuple):
    """A parsed schema, the schemas that it refers to, and where readers are more lenient than Avro Java."""

    schema: AvroType
    references: list[AvroType]
    deviations: list[str]


def read_tree(text: str, references: Iterable[str] = ()) -> Tree:
    """Parse a schema. ``references``: the texts that it refers to; each follows its own references.

    Raises ``InvalidSchemaError``, ``OverBudgetError``.
    """
    parser = _Parser(current_budget())
    parsed = [parser.parse(each) for each in references]
    parser.close_references()
    schema = parser.parse(text)
    return Tree(schema, parsed, list(parser.deviations))


class _Parser:
    """Parses texts that may use each other's names."""

    def __init__(self, budget: Budget) -> None:
        self.deviations: dict[str, None] = {}
        self._types: dict[str, AvroType] = {}
        self._referenced: frozenset[str] = frozenset()
        self._budget = budget

    def parse(self, text: str) -> AvroType:
        self._budget.spend(1 + len(text) // 15)  # first, so that not even the JSON of a long text is parsed
        try:
            value = json.loads(text, parse_constant=_reject_constant)
        except RecursionError:
            raise InvalidSchemaError(f"not an Avro schema: nested deeper than {MAX_DEPTH}") from None
        except ValueError as error:
            raise InvalidSchemaError(f"not an Avro schema: not JSON: {error}") from None
        return self._type(value, "", 0)

    def close_references(self) -> None:
        """Treat all types that were parsed so far as those of references."""
        self._referenced = frozenset(self._types)

    # Each level of nesting takes few stack frames: schemas may be nested as deep as MAX_DEPTH.
    def _type(self, part: Any, namespace: str, depth: int) -> AvroType:
        self._budget.spend()
        if isinstance(part, str):
            return self._resolve(part, namespace)
        if depth >= MAX_DEPTH:
            raise InvalidSchemaError(f"not an Avro schema: nested deeper than {MAX_DEPTH}")
        if isinstance(part, list):
            return self._union(part, namespace, depth)
        if not isinstance(part, dict):
            raise _invalid(f"{_excerpt(part)} is not a type")
        kind = part.get("type")
        if isinstance(kind, (dict, list)):
            self._note(f"a type inside the attribute 'type' of another: {_excerpt(part)}")
            return self._type(kind, namespace, depth + 1)
        if not isinstance(kind, str):
            raise _invalid(f"the type is missing: {_excerpt(part)}")
        if kind in PRIMITIVES:
            props = _unknown_attributes(part, _TYPE_ATTRIBUTES)
            return AvroType(kind, props=props) if props else _PLAIN[kind]
        if kind in NAMED:
            return self._named(kind, part, namespace, depth)
        if kind in ("array", "map"):
            inner = self._type(_inner_part(kind, part), namespace, depth + 1)
            return AvroType(kind, props=_unknown_attributes(part, _TYPE_ATTRIBUTES), inner=[inner])
        return self._resolve(kind, namespace)

    def _note(self, deviation: str) -> None:
        self.deviations[deviation] = None

    def _resolve(self, name: str, namespace: str) -> AvroType:
        if name in PRIMITIVES:
            return _PLAIN[name]
        if name.startswith("."):
            self._note(f"the name of the type {shorten(name)!r} starts with a dot")
        type_ = self._types.get(f"{namespace}.{name}") if namespace and "." not in name else None
        type_ = type_ or self._types.get(name.removeprefix(".") if name.rfind(".") == 0 else name)
        if type_ is None:
            raise _invalid(f"{shorten(name)!r} is not a defined name")
        return type_

    def _union(self, part: list[Any], namespace: str, depth: int) -> AvroType:
        branches = [self._type(each, namespace, depth + 1) for each in part]
        seen: set[str] = set()
        for branch in branches:
            if branch.kind == "union":
                raise _invalid(f"a union inside a union: {_excerpt(part)}")
            if branch.full_name in seen:
                self._note(f"{shorten(branch.full_name)} is twice in a union")
            seen.add(branch.full_name)
        return AvroType("union", inner=branches)

    def _named(self, kind: str, part: dict[str, Any], namespace: str, depth: int) -> AvroType:
        type_ = self._new_named(kind, part, namespace)
        known = self._types.get(type_.full_name)
        if known is not None and type_.full_name not in self._referenced:
            raise _invalid(f"{shorten(type_.full_name)!r} is defined twice")
        if not type_.namespace and part["name"] in PRIMITIVES:
            raise _invalid(f"a type cannot have the name {part['name']!r}")
        self._types[type_.full_name] = type_
        if kind == "enum":
            self._read_symbols(type_, part)
        elif kind == "fixed":
            type_.size = part.get("size", -1)
            if type(type_.size) is not int or not 0 <= type_.size <= _MAX_LENGTH:
                raise _invalid(f"the fixed {shorten(type_.full_name)!r} has no size, or an impossible one")
        else:
            self._read_fields(type_, part, depth)
        return type_ if known is None else self._defined_again(known, type_)

    def _new_named(self, kind: str, part: dict[str, Any], namespace: str) -> AvroType:
        name = part.get("name")
        if not isinstance(name, str):
            raise _invalid(f"the {kind} has no name: {_excerpt(part)}")
        attribute = part.get("namespace")
        in_name, dot, short = name.rpartition(".")
        if dot:
            namespace = in_name
        elif isinstance(attribute, str):
            namespace = attribute
        aliases = self._aliases(part)
        # All types inside inherit a long namespace.
        self._budget.spend((1 + len(aliases)) * (len(namespace) // 50))
        type_ = AvroType(kind, short, namespace, _string_or_none(part.get("doc")))
        type_.aliases = tuple(_full_name(alias, namespace) for alias in aliases)
        known = _ENUM_ATTRIBUTES if kind == "enum" else _TYPE_ATTRIBUTES
        type_.props = _unknown_attributes(part, known)
        return type_

    def _defined_again(self, known: AvroType, type_: AvroType) -> AvroType:
        """Return the type of a reference that the schema writes again, as Avro Java itself does."""
        texts = text_of(known), text_of(type_)
        self._budget.spend(len(texts[0]) // 20)
        if texts[0] != texts[1]:
            raise _invalid(f"{shorten(type_.full_name)!r} is defined twice")
        self._note(f"{shorten(type_.full_name)!r} is defined by a reference, too")
        self._types[known.full_name] = known
        return known

    def _read_symbols(self, enum: AvroType, part: dict[str, Any]) -> None:
        symbols, default = part.get("symbols"), part.get("default")
        if not isinstance(symbols, list) or not all(isinstance(each, str) for each in symbols):
            raise _invalid(f"the enum {shorten(enum.full_name)!r} has no list of symbols")
        self._budget.spend(len(symbols))
        known = set(symbols)
        if len(known) < len(symbols):
            self._note(f"the enum {shorten(enum.full_name)!r} has a symbol twice")
        enum.symbols = symbols
        if isinstance(default, str):
            if default not in known:
                self._note(f"the enum {shorten(enum.full_name)!r} lacks its own default {default[:100]!r}")
            enum.default = default

    def _read_fields(self, record: AvroType, part: dict[str, Any], depth: int) -> None:
        fields = part.get("fields")
        if not isinstance(fields, list):
            raise _invalid(f"the {record.kind} {shorten(record.full_name)!r} has no list of fields")
        self._budget.spend(len(fields))
        seen: set[str] = set()
        for each in fields:
            name = each.get("name") if isinstance(each, dict) else None
            if not isinstance(name, str):
                raise _invalid(f"a field of {shorten(record.full_name)!r} has no name: {_excerpt(each)}")
            if name in seen:
                raise _invalid(f"{shorten(record.full_name)!r} has the field {shorten(name)!r} twice")
            seen.add(name)
            place = f"the field {shorten(name)!r} of {shorten(record.full_name)!r}"
            if "type" not in each:
                raise _invalid(f"{place} has no type")
            order = self._order(each, place)
            type_ = self._type(each["type"], record.namespace, depth + 1)
            aliases = tuple(dict.fromkeys(self._aliases(each)))
            default, doc = each.get("default", NO_DEFAULT), _string_or_none(each.get("doc"))
            props = _unknown_attributes(each, _FIELD_ATTRIBUTES)
            record.fields.append(Field(name, type_, doc, default, order, aliases, props))

    def _order(self, part: dict[str, Any], place: str) -> str:
        order = part.get("order", "ascending")
        if isinstance(order, str) and order.lower() in ("ascending", "descending", "ignore"):
            return order.lower()
        self._note(f"{place} has an unknown order")
        return "ascending"

    def _aliases(self, part: dict[str, Any]) -> list[str]:
        aliases = part.get("aliases")
        if aliases is None:
            return []
        if not isinstance(aliases, list) or not all(isinstance(each, str) for each in aliases):
            self._note(f"the aliases are not a list of names: {_excerpt(part)}")
            return []
        return aliases


def _inner_part(kind: str, part: dict[str, Any]) -> Any:
    key = "items" if kind == "array" else "values"
    if key not in part:
        raise _invalid(f"the {kind} has no {key}: {_excerpt(part)}")
    return part[key]


def _full_name(name: str, namespace: str) -> str:
    if name.rfind(".") == 0:  # a dot at the start means no namespace
        return name[1:]
    return name if "." in name or not namespace else f"{namespace}.{name}"


def _unknown_attributes(part: dict[str, Any], known: frozenset[str]) -> dict[str, Any]:
    return {} if part.keys() <= known else {key: part[key] for key in part if key not in known}


def _string_or_none(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _reject_constant(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")


def _excerpt(part: Any) -> str:
    """Return the beginning of a part of a schema, for a message."""
    text = _outline(part) if isinstance(part, (dict, list)) else json.dumps(part)
    return text if len(text) <= 200 else f"{text[:200]}…"


def _outline(part: dict[str, Any] | list[Any]) -> str:
    items: Iterable[tuple[Any, Any]] = part.items() if isinstance(part, dict) else enumerate(part)
    parts = [
        f"{key}: {value!r}" if isinstance(value, (str, int)) else f"{key}: …"
        for key, value in itertools.islice(items, 8)
    ]
    return ", ".join(each[:50] for each in parts)


def _invalid(why: str) -> InvalidSchemaError:
    return InvalidSchemaError(f"not an Avro schema: {why}")
