"""What a new schema must keep so that JVM clients can parse it (Avro Java 1.11 and 1.12, by default). Pure.

Readers do not need these rules, so schemas that stand already are not held to them.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterator, Mapping
from typing import Any

from tieline.registry.model.avro_text import default_of
from tieline.registry.model.avro_types import NO_DEFAULT, AvroType, shortened
from tieline.registry.model.budget import Budget, current

_WHOLE = {"int": 2**31, "long": 2**63}
_NAMING = "a name has letters, digits and underscores, and begins with no digit"


def problems(schema: AvroType) -> list[str]:
    """A sentence each; it names the type and the field, and stays the same in later versions."""
    return list(dict.fromkeys(_Judge(current()).of(schema)))


class _Judge:
    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._seen: set[int] = set()

    def of(self, part: AvroType) -> Iterator[str]:
        if id(part) in self._seen:
            return
        self._seen.add(id(part))
        self._budget.spend(1 + len(part.symbols) + len(part.fields))
        if part.kind in ("record", "error", "array", "map"):
            yield from _numbers(part.props, f"the {part.kind} {shortened(part.full_name)!r}")
        if part.is_named:
            yield from self._names(part)
        for field in part.fields:
            place = f"the field {shortened(field.name)!r} of {shortened(part.full_name)!r}"
            if not _is_name(field.name):
                yield f"{place}: {_NAMING}"
            yield from self.of(field.type)
            if field.default is not NO_DEFAULT and not self._fits(field.type, default_of(field)):
                yield f"{place}: the default {_cut(field.default)} is no {_said(field.type)}"
        for inner in part.inner:
            yield from self.of(inner)

    def _names(self, part: AvroType) -> Iterator[str]:
        for name in [*(part.space.split(".") if part.space else ()), part.name]:
            if not _is_name(name):
                yield f"the {part.kind} {shortened(part.full_name)!r}: {_NAMING}, not {shortened(name)!r}"
        for alias in part.aliases:
            if not _is_name(alias.rpartition(".")[2]):
                yield f"the alias {shortened(alias)!r} of {shortened(part.full_name)!r}: {_NAMING}"
        for symbol in part.symbols:
            if not _is_name(symbol):
                yield f"the symbol {shortened(symbol)!r} of {shortened(part.full_name)!r}: {_NAMING}"

    def _fits(self, part: AvroType, value: Any) -> bool:
        """Whether a default is one of this type; of a union, of its first branch."""
        self._budget.spend()
        kind = part.kind
        if kind == "union":
            return bool(part.inner) and self._fits(part.inner[0], value)
        if kind == "null":
            return value is None
        if kind == "boolean":
            return isinstance(value, bool)
        if kind in _WHOLE:
            return type(value) is int and -_WHOLE[kind] <= value < _WHOLE[kind]
        if kind in ("float", "double"):
            return isinstance(value, (int, float)) and not isinstance(value, bool)
        if kind == "array":
            return isinstance(value, list) and all(self._fits(part.inner[0], each) for each in value)
        if kind == "map":
            return isinstance(value, dict) and all(self._fits(part.inner[0], each) for each in value.values())
        if kind in ("record", "error"):
            given = value if isinstance(value, dict) else {}
            return isinstance(value, dict) and all(
                self._fits(field.type, given.get(field.name, default_of(field))) for field in part.fields
            )
        return isinstance(value, str)


def _is_name(name: str) -> bool:
    if name.isascii():
        return name.isidentifier()
    return (name[0] == "_" or _letter(name[0])) and all(
        each == "_" or _letter(each) or unicodedata.category(each) == "Nd" for each in name[1:]
    )


def _letter(character: str) -> bool:
    return character <= "\uffff" and unicodedata.category(character).startswith("L")


def _numbers(props: Mapping[str, Any], place: str) -> Iterator[str]:
    for key, value in props.items():
        if _is_huge(value):
            yield f"{place}: the attribute {shortened(key)!r} has a number beyond 64 bits"


def _is_huge(value: Any) -> bool:
    if isinstance(value, (dict, list)):
        return any(map(_is_huge, value.values() if isinstance(value, dict) else value))
    return type(value) is int and not -(2**63) <= value < 2**63


def _said(part: AvroType) -> str:
    first = part.inner[0] if part.kind == "union" and part.inner else None
    if first is None:
        return shortened(part.full_name)
    return f"{shortened(first.full_name)}, the union's first branch"


def _cut(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:60]}…"
