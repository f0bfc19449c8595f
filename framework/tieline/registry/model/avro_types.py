"""An Avro schema as a tree of types: read from its text as leniently as readers read. Pure.

What reading does not need is not judged here: names of any form, defaults, logical types, attributes of any
name. ``avro_rules`` judges them for new schemas; ``avro_text`` writes a tree as Avro Java does. All of it
takes time in proportion to the schema's length.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from tieline.registry.model.budget import Budget, current

PRIMITIVES = frozenset(("null", "boolean", "int", "long", "float", "double", "bytes", "string"))
MAX_DEPTH = 200
"""Types inside types; deeper ones, which only an attacker writes, would overflow the stack."""
_MAX_LENGTH = 2_147_483_639  # of an array in Java

_OF_A_TYPE = frozenset(
    ("doc", "fields", "items", "name", "namespace", "size", "symbols", "values", "type", "aliases")
)
_OF_AN_ENUM = _OF_A_TYPE | {"default"}
_OF_A_FIELD = frozenset(("default", "doc", "name", "order", "type", "aliases"))

NO_DEFAULT: Any = object()


class InvalidSchema(ValueError):
    """No schema of its type; the sentence says why."""


@dataclass(slots=True, eq=False)
class Field:
    """A field of a record. ``default``: as in the JSON, or ``NO_DEFAULT``."""

    name: str
    type: AvroType
    doc: str | None = None
    default: Any = NO_DEFAULT
    order: str = "ascending"
    aliases: tuple[str, ...] = ()
    props: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class AvroType:
    """A type. Which attributes have a meaning depends on ``kind``: a primitive's name, record, error, enum,
    fixed, array, map or union. ``aliases`` are full names, ``inner`` are items, values or branches.
    """

    kind: str
    name: str = ""
    space: str = ""
    doc: str | None = None
    aliases: tuple[str, ...] = ()
    props: dict[str, Any] = field(default_factory=dict)
    fields: list[Field] = field(default_factory=list)
    symbols: list[str] = field(default_factory=list)
    default: str | None = None
    size: int = 0
    inner: list[AvroType] = field(default_factory=list)
    full_name: str = ""
    """With its namespace; of an unnamed type its kind."""

    def __post_init__(self) -> None:
        if not self.full_name:
            self.full_name = f"{self.space}.{self.name}" if self.space else self.name or self.kind

    @property
    def is_named(self) -> bool:
        """Whether it has a name of its own."""
        return self.kind in NAMED


NAMED = frozenset(("record", "error", "enum", "fixed"))
_PLAIN = {kind: AvroType(kind) for kind in PRIMITIVES}


class Read(NamedTuple):
    """What was read. ``referred``: what it refers to. ``odd``: what readers take and Avro Java does not."""

    schema: AvroType
    referred: list[AvroType]
    odd: list[str]


def read(text: str, references: Iterable[str] = ()) -> Read:
    """The schema of a text. ``references``: texts of what it refers to, each behind what it needs itself.

    Raises ``InvalidSchema``, ``OverBudget``.
    """
    reader = _Reader(current())
    referred = [reader.read(each) for each in references]
    reader.close_references()
    schema = reader.read(text)
    return Read(schema, referred, list(reader.odd))


class _Reader:
    def __init__(self, budget: Budget) -> None:
        self.odd: dict[str, None] = {}
        self._known: dict[str, AvroType] = {}
        self._referred: frozenset[str] = frozenset()
        self._budget = budget

    def read(self, text: str) -> AvroType:
        self._budget.spend(1 + len(text) // 15)  # first: of a long text, not even the JSON is read
        try:
            value = json.loads(text, parse_constant=_refuse)
        except RecursionError:
            raise InvalidSchema(f"not an Avro schema: nested deeper than {MAX_DEPTH}") from None
        except ValueError as error:
            raise InvalidSchema(f"not an Avro schema: no JSON: {error}") from None
        return self._type(value, "", 0)

    def close_references(self) -> None:
        """All that was read so far are references."""
        self._referred = frozenset(self._known)

    def _type(self, part: Any, space: str, depth: int) -> AvroType:
        self._budget.spend()
        if isinstance(part, str):
            return self._called(part, space)
        if depth >= MAX_DEPTH:
            raise InvalidSchema(f"not an Avro schema: nested deeper than {MAX_DEPTH}")
        if isinstance(part, list):
            return self._union(part, space, depth)
        if not isinstance(part, dict):
            raise _wrong(f"{_cut(part)} is no type")
        kind = part.get("type")
        if isinstance(kind, (dict, list)):
            self._note(f"a type inside the attribute 'type' of another: {_cut(part)}")
            return self._type(kind, space, depth + 1)
        if not isinstance(kind, str):
            raise _wrong(f"no type: {_cut(part)}")
        if kind in PRIMITIVES:
            props = _others(part, _OF_A_TYPE)
            return AvroType(kind, props=props) if props else _PLAIN[kind]
        if kind in NAMED:
            return self._named(kind, part, space, depth)
        if kind in ("array", "map"):
            inner = "items" if kind == "array" else "values"
            if inner not in part:
                raise _wrong(f"the {kind} has no {inner}: {_cut(part)}")
            return AvroType(
                kind, props=_others(part, _OF_A_TYPE), inner=[self._type(part[inner], space, depth + 1)]
            )
        return self._called(kind, space)

    def _note(self, what: str) -> None:
        self.odd[what] = None

    def _called(self, name: str, space: str) -> AvroType:
        if name in PRIMITIVES:
            return _PLAIN[name]
        if name.startswith("."):
            self._note(f"the type {shortened(name)!r} is called with a dot in front")
        found = self._known.get(f"{space}.{name}") if space and "." not in name else None
        found = found or self._known.get(name.removeprefix(".") if name.rfind(".") == 0 else name)
        if found is None:
            raise _wrong(f"{shortened(name)!r} is not a defined name")
        return found

    def _union(self, part: list[Any], space: str, depth: int) -> AvroType:
        branches = [self._type(each, space, depth + 1) for each in part]
        seen: set[str] = set()
        for branch in branches:
            if branch.kind == "union":
                raise _wrong(f"a union inside a union: {_cut(part)}")
            if branch.full_name in seen:
                self._note(f"{shortened(branch.full_name)} is twice in a union")
            seen.add(branch.full_name)
        return AvroType("union", inner=branches)

    def _named(self, kind: str, part: dict[str, Any], space: str, depth: int) -> AvroType:
        name = part.get("name")
        if not isinstance(name, str):
            raise _wrong(f"the {kind} has no name: {_cut(part)}")
        own = part.get("namespace")
        before, dot, short = name.rpartition(".")
        space = before if dot else own if isinstance(own, str) else space
        aliases = self._aliases(part)
        # A long namespace is inherited by all that stands in it.
        self._budget.spend((1 + len(aliases)) * (len(space) // 50))
        made = AvroType(kind, short, space, _text(part.get("doc")))
        made.aliases = tuple(_full(alias, space) for alias in aliases)
        made.props = _others(part, _OF_AN_ENUM if kind == "enum" else _OF_A_TYPE)
        known = self._known.get(made.full_name)
        if known is not None and made.full_name not in self._referred:
            raise _wrong(f"{shortened(made.full_name)!r} is defined twice")
        if not space and name in PRIMITIVES:
            raise _wrong(f"a type may not be called {name!r}")
        self._known[made.full_name] = made
        if kind == "enum":
            self._symbols(made, part)
        elif kind == "fixed":
            made.size = part.get("size", -1)
            if type(made.size) is not int or not 0 <= made.size <= _MAX_LENGTH:
                raise _wrong(f"the fixed {shortened(made.full_name)!r} has no size, or an impossible one")
        else:
            self._fields(made, part, depth)
        return made if known is None else self._again(known, made)

    def _again(self, known: AvroType, made: AvroType) -> AvroType:
        """What a reference defines may be written out once more, as Avro Java itself does."""
        from tieline.registry.model.avro_text import text_of

        texts = text_of(known), text_of(made)
        self._budget.spend(len(texts[0]) // 20)
        if texts[0] != texts[1]:
            raise _wrong(f"{shortened(made.full_name)!r} is defined twice")
        self._note(f"{shortened(made.full_name)!r} is defined by a reference, too")
        self._known[known.full_name] = known
        return known

    def _symbols(self, enum: AvroType, part: dict[str, Any]) -> None:
        symbols, default = part.get("symbols"), part.get("default")
        if not isinstance(symbols, list) or not all(isinstance(each, str) for each in symbols):
            raise _wrong(f"the enum {shortened(enum.full_name)!r} has no list of symbols")
        self._budget.spend(len(symbols))
        known = set(symbols)
        if len(known) < len(symbols):
            self._note(f"the enum {shortened(enum.full_name)!r} has a symbol twice")
        enum.symbols = symbols
        if isinstance(default, str):
            if default not in known:
                self._note(f"the enum {shortened(enum.full_name)!r} lacks its own default {default[:100]!r}")
            enum.default = default

    def _fields(self, record: AvroType, part: dict[str, Any], depth: int) -> None:
        fields = part.get("fields")
        if not isinstance(fields, list):
            raise _wrong(f"the {record.kind} {shortened(record.full_name)!r} has no list of fields")
        self._budget.spend(len(fields))
        seen: set[str] = set()
        for each in fields:
            name = each.get("name") if isinstance(each, dict) else None
            if not isinstance(name, str):
                raise _wrong(f"a field of {shortened(record.full_name)!r} has no name: {_cut(each)}")
            if name in seen:
                raise _wrong(f"{shortened(record.full_name)!r} has the field {shortened(name)!r} twice")
            seen.add(name)
            if "type" not in each:
                raise _wrong(f"the field {shortened(name)!r} of {shortened(record.full_name)!r} has no type")
            order = each.get("order", "ascending")
            if not isinstance(order, str) or order.lower() not in ("ascending", "descending", "ignore"):
                self._note(
                    f"the field {shortened(name)!r} of {shortened(record.full_name)!r} has an unknown order"
                )
                order = "ascending"
            made = Field(name, self._type(each["type"], record.space, depth + 1), _text(each.get("doc")))
            made.order = order.lower()
            made.default = each.get("default", NO_DEFAULT)
            made.aliases = tuple(dict.fromkeys(self._aliases(each)))
            made.props = _others(each, _OF_A_FIELD)
            record.fields.append(made)

    def _aliases(self, part: dict[str, Any]) -> list[str]:
        found = part.get("aliases")
        if found is None:
            return []
        if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
            self._note(f"aliases that are no list of names: {_cut(part)}")
            return []
        return found


def _full(name: str, space: str) -> str:
    if name.rfind(".") == 0:  # a dot in front: without a namespace
        return name[1:]
    return name if "." in name or not space else f"{space}.{name}"


def _others(part: dict[str, Any], known: frozenset[str]) -> dict[str, Any]:
    return {} if part.keys() <= known else {key: part[key] for key in part if key not in known}


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON")


def shortened(name: str) -> str:
    """A name for a message."""
    return name if len(name) <= 200 else f"{name[:200]}…"


def _cut(part: Any) -> str:
    """The beginning of a part of a schema, for a message."""
    text = json.dumps(part) if not isinstance(part, (dict, list)) else _shallow(part)
    return text if len(text) <= 200 else f"{text[:200]}…"


def _shallow(part: dict[str, Any] | list[Any]) -> str:
    items: Iterable[tuple[Any, Any]] = part.items() if isinstance(part, dict) else enumerate(part)
    told = [
        f"{key}: {value!r}" if isinstance(value, (str, int)) else f"{key}: …"
        for key, value in itertools.islice(items, 8)
    ]
    return ", ".join(each[:50] for each in told)


def _wrong(why: str) -> InvalidSchema:
    return InvalidSchema(f"not an Avro schema: {why}")
