"""The rules by which clients on the JVM parse a new schema (Avro Java 1.11 and 1.12, by default). Pure.

Readers do not need these rules, so they do not apply to schemas that exist already.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from tieline.registry.model.avro_text import default_of
from tieline.registry.model.avro_types import NO_DEFAULT, AvroType, shorten
from tieline.registry.model.budget import Budget, current_budget

_NAMING = "a name has letters, digits and underscores, and does not begin with a digit"


def problems(schema: AvroType) -> list[str]:
    """Return one sentence for each problem.

    It names the type and the field, and is the same for later versions of the schema.
    """
    return list(dict.fromkeys(_Check(current_budget()).problems(schema)))


class _Check:
    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._seen: set[int] = set()

    def problems(self, part: AvroType) -> Iterator[str]:
        if id(part) in self._seen:
            return
        self._seen.add(id(part))
        self._budget.spend(1 + len(part.symbols) + len(part.fields))
        if part.kind in ("record", "error", "array", "map"):
            yield from _number_problems(part.props, f"the {part.kind} {shorten(part.full_name)!r}")
        if part.is_named:
            yield from self._name_problems(part)
        for field in part.fields:
            place = f"the field {shorten(field.name)!r} of {shorten(part.full_name)!r}"
            if not _is_name(field.name):
                yield f"{place}: {_NAMING}"
            yield from self.problems(field.type)
            if field.default is not NO_DEFAULT and not self._fits(field.type, default_of(field)):
                yield f"{place}: the default {_excerpt(field.default)} is not {_type_of_default(field.type)}"
        for inner in part.inner:
            yield from self.problems(inner)

    def _name_problems(self, part: AvroType) -> Iterator[str]:
        for name in [*(part.namespace.split(".") if part.namespace else ()), part.name]:
            if not _is_name(name):
                yield f"the {part.kind} {shorten(part.full_name)!r}: {_NAMING}, not {shorten(name)!r}"
        for alias in part.aliases:
            if not _is_name(alias.rpartition(".")[2]):
                yield f"the alias {shorten(alias)!r} of {shorten(part.full_name)!r}: {_NAMING}"
        for symbol in part.symbols:
            if not _is_name(symbol):
                yield f"the symbol {shorten(symbol)!r} of {shorten(part.full_name)!r}: {_NAMING}"

    def _fits(self, part: AvroType, value: Any) -> bool:
        """Return whether a default has this type; for a union, that of its first branch."""
        self._budget.spend()
        kind = part.kind
        if kind == "union":
            return bool(part.inner) and self._fits(part.inner[0], value)
        if kind == "array":
            return isinstance(value, list) and all(self._fits(part.inner[0], each) for each in value)
        if kind == "map":
            return isinstance(value, dict) and all(self._fits(part.inner[0], each) for each in value.values())
        if kind in ("record", "error"):
            return isinstance(value, dict) and all(
                self._fits(field.type, value.get(field.name, default_of(field))) for field in part.fields
            )
        return _PRIMITIVE_DEFAULTS.get(kind, _is_string)(value)


def _is_string(value: Any) -> bool:
    return isinstance(value, str)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


_PRIMITIVE_DEFAULTS: Mapping[str, Callable[[Any], bool]] = {
    "null": lambda value: value is None,
    "boolean": lambda value: isinstance(value, bool),
    "int": lambda value: type(value) is int and -(2**31) <= value < 2**31,
    "long": lambda value: type(value) is int and -(2**63) <= value < 2**63,
    "float": _is_number,
    "double": _is_number,
}
"""Whether a value can be the default of a type; a default of every other simple type is a string."""


def _is_name(name: str) -> bool:
    if name.isascii():
        return name.isidentifier()
    return (name[0] == "_" or _is_letter(name[0])) and all(
        each == "_" or _is_letter(each) or unicodedata.category(each) == "Nd" for each in name[1:]
    )


def _is_letter(character: str) -> bool:
    return character <= "\uffff" and unicodedata.category(character).startswith("L")


def _number_problems(props: Mapping[str, Any], place: str) -> Iterator[str]:
    for key, value in props.items():
        if _is_huge(value):
            yield f"{place}: the attribute {shorten(key)!r} has a number beyond 64 bits"


def _is_huge(value: Any) -> bool:
    if isinstance(value, (dict, list)):
        return any(map(_is_huge, value.values() if isinstance(value, dict) else value))
    return type(value) is int and not -(2**63) <= value < 2**63


def _type_of_default(part: AvroType) -> str:
    first = part.inner[0] if part.kind == "union" and part.inner else None
    if first is None:
        return f"of type {shorten(part.full_name)}"
    return f"of type {shorten(first.full_name)}, the union's first branch"


def _excerpt(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:60]}…"
