"""Whether one version of an Avro schema reads what another wrote (Avro 1.12, "Schema Resolution"). Pure.

The rules are those of Apache avro (``avro.compatibility``), told by the place in the data. One is stricter,
as the specification is: a decimal keeps its precision and scale, since a reader with another scale would
take the number for another one without a word.

The time is in proportion to the schemas' length, but for unions whose branches have equal names in other
namespaces and for recursive types that repeat at another length; those end with the request's budget.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from tieline.registry.model.avro_schema import Parsed
from tieline.registry.model.avro_types import NO_DEFAULT, AvroType, shortened
from tieline.registry.model.budget import OverBudget, current
from tieline.registry.model.cache import Remembered

LEVELS = (
    "NONE",
    *("BACKWARD", "BACKWARD_TRANSITIVE"),
    *("FORWARD", "FORWARD_TRANSITIVE"),
    *("FULL", "FULL_TRANSITIVE"),
)

_PROMOTIONS = {
    "long": {"int"},
    "float": {"int", "long"},
    "double": {"int", "long", "float"},
    "string": {"bytes"},
    "bytes": {"string"},
}
_READERS_OF = {kind: [r for r, writers in _PROMOTIONS.items() if kind in writers] for kind in _PROMOTIONS} | {
    "int": ["long", "float", "double"]
}

_AT_MOST = 20
"""So many messages are enough to begin with."""
_NAMED_AT_MOST = 10
"""So many branches of a union, or symbols, are named in a message."""

_verdicts: Remembered[list[str]] = Remembered(20_000)  # messages, and one for each verdict


def incompatibilities(level: str, new: Parsed, earlier: Sequence[Parsed]) -> list[str]:
    """Why a level forbids ``new``; empty: it does not.

    ``earlier``: the versions there are, the newest last; the level says which count.
    """
    if level == "NONE":
        return []
    counting = earlier if level.endswith("_TRANSITIVE") else earlier[-1:]
    found: list[str] = []
    for back, old in enumerate(reversed(counting)):
        which = f"the latest version but {back}" if back else "the latest version"
        if not level.startswith("FORWARD"):
            found += [f"what {which} wrote cannot be read: {one}" for one in differences(new, old)]
        if not level.startswith("BACKWARD"):
            found += [f"{which} cannot read it: {one}" for one in differences(old, new)]
    return found[:_AT_MOST]


def differences(reader: Parsed, writer: Parsed) -> list[str]:
    """Where ``reader`` cannot read what ``writer`` wrote: a sentence a place.

    Raises ``InvalidSchema``, ``OverBudget``.
    """
    if reader.digest == writer.digest:
        return []

    def make() -> list[str]:
        if (reader.canonical, reader.references) == (writer.canonical, writer.references):
            return []
        try:
            return list(dict.fromkeys(_Check().of(reader.definition, writer.definition, "")))[:_AT_MOST]
        except RecursionError:
            raise OverBudget from None

    return _verdicts.get((reader.digest, writer.digest), _AT_MOST, make)


class _Check:
    def __init__(self) -> None:
        self._budget = current()
        self._seen: dict[tuple[int, int], list[str]] = {}
        self._order: list[tuple[int, int]] = []
        self._branches: dict[int, dict[str, list[AvroType]]] = {}
        self._fields_of: dict[int, dict[str, AvroType]] = {}

    def of(self, reader: AvroType, writer: AvroType, path: str) -> list[str]:
        pair = id(reader), id(writer)
        if pair not in self._seen:
            self._budget.spend()
            self._order.append(pair)
            self._seen[pair] = []  # a recursive type is readable if the rest of it is
            self._seen[pair] = self._compare(reader, writer, path)
        return self._seen[pair]

    def _compare(self, reader: AvroType, writer: AvroType, path: str) -> list[str]:
        if reader is writer:
            return []
        if writer.kind == "union":
            told: list[str] = []
            self._budget.spend(len(writer.inner) // 4)
            for branch in writer.inner:
                told += self.of(reader, branch, path)
                if len(told) >= _AT_MOST:
                    break
            return told
        if reader.kind == "union":
            return self._one_of(reader, writer, path)
        if reader.kind != writer.kind:
            return [] if writer.kind in _PROMOTIONS.get(reader.kind, ()) else [_types(reader, writer, path)]
        if reader.kind in ("array", "map"):
            return self.of(
                reader.inner[0], writer.inner[0], f"{path}[]" if reader.kind == "array" else f"{path}{{}}"
            )
        if reader.is_named and not _same_name(reader, writer):
            return [f"{_at(path)}is {_name(reader)} here and {_name(writer)} there, without an alias"]
        if reader.kind in ("record", "error"):
            return self._fields(reader, writer, path)
        if reader.kind == "enum":
            self._budget.spend((len(reader.symbols) + len(writer.symbols)) // 8)
            return _symbols(reader, writer, path)
        if reader.kind == "fixed" and reader.size != writer.size:
            return [f"{_at(path)}has {reader.size} bytes here and {writer.size} there"]
        return _decimals(reader, writer, path)

    def _one_of(self, reader: AvroType, writer: AvroType, path: str) -> list[str]:
        told: list[str] = []
        for branch in self._that_may_read(reader, writer):
            known = len(self._order)
            found = self.of(branch, writer, path)
            if not found:
                return []
            self._forget_assumed(known)
            if branch.kind == writer.kind:  # what is wrong with the one that was meant says more
                told = told or found
        return told or [f"{_at(path)}may not be {_name(writer)}: {_name(reader)} lacks it"]

    def _that_may_read(self, union: AvroType, writer: AvroType) -> Iterator[AvroType]:
        """The union's branches, but for those that cannot: of another kind, or of another name."""
        known = self._branches.get(id(union))
        if known is None:
            self._budget.spend(len(union.inner))
            known = self._branches[id(union)] = {}
            for branch in union.inner:
                for key in dict.fromkeys(_keys_of(branch)):
                    known.setdefault(key, []).append(branch)
        if not writer.is_named:
            for kind in (writer.kind, *_READERS_OF.get(writer.kind, ())):
                yield from known.get(kind, ())
            return
        by_name = known.get(f"{writer.kind} {writer.name}", [])
        yield from by_name
        yield from (
            each for each in known.get(f"{writer.kind} alias {writer.full_name}", ()) if each not in by_name
        )

    def _forget_assumed(self, known: int) -> None:
        """What was found readable since then may have been so only if the branch was, which it is not."""
        since = self._order[known:]
        self._budget.spend(len(since) // 8)
        del self._order[known:]
        for pair in since:
            if self._seen[pair]:
                self._order.append(pair)
            else:
                del self._seen[pair]

    def _fields(self, reader: AvroType, writer: AvroType, path: str) -> list[str]:
        self._budget.spend(len(reader.fields) // 4)
        there = self._fields_of.get(id(writer))
        if there is None:
            self._budget.spend(len(writer.fields) // 4)
            there = self._fields_of[id(writer)] = {field.name: field.type for field in writer.fields}
        found: list[str] = []
        for field in reader.fields:
            place = f"{path}.{field.name}" if path else field.name
            known = next((there[name] for name in (field.name, *field.aliases) if name in there), None)
            if known is not None:
                found += self.of(field.type, known, place)
            elif field.default is NO_DEFAULT:
                found.append(
                    f"the field {shortened(place)!r} is missing there and has no default here; give it one"
                )
            if len(found) >= _AT_MOST:
                break
        return found


def _keys_of(branch: AvroType) -> Iterator[str]:
    if not branch.is_named:
        yield branch.kind
        return
    yield f"{branch.kind} {branch.name}"
    yield from (f"{branch.kind} alias {alias}" for alias in branch.aliases)


def _symbols(reader: AvroType, writer: AvroType, path: str) -> list[str]:
    known = set(reader.symbols)
    lacking = [symbol for symbol in writer.symbols if symbol not in known]
    if not lacking or reader.default in known:
        return []
    named = ", ".join(shortened(each) for each in lacking[:_NAMED_AT_MOST])
    more = f" and {len(lacking) - _NAMED_AT_MOST} more" if len(lacking) > _NAMED_AT_MOST else ""
    return [f"{_at(path)}lacks the symbol(s) {named}{more} and has no default symbol"]


def _decimals(reader: AvroType, writer: AvroType, path: str) -> list[str]:
    mine, theirs = _decimal(reader), _decimal(writer)
    if mine == theirs or mine is None or theirs is None:
        return []
    return [f"{_at(path)}is a decimal of precision and scale {mine} here and {theirs} there"]


def _decimal(schema: AvroType) -> tuple[Any, Any] | None:
    if schema.props.get("logicalType") != "decimal":
        return None
    return schema.props.get("precision"), schema.props.get("scale", 0)


def _same_name(reader: AvroType, writer: AvroType) -> bool:
    """Without their namespaces, as the specification has it; an alias counts with and without."""
    return reader.name == writer.name or writer.full_name in reader.aliases


def _types(reader: AvroType, writer: AvroType, path: str) -> str:
    return f"{_at(path)}is {_name(reader)} here and {_name(writer)} there"


def _name(schema: AvroType) -> str:
    if schema.is_named:
        return f"the {schema.kind} {shortened(schema.full_name)}"
    if schema.kind == "union":
        named = [_name(branch) for branch in schema.inner[:_NAMED_AT_MOST]]
        more = len(schema.inner) - len(named)
        return f"the union of {', '.join(named)}{f' and {more} more' if more else ''}"
    return schema.kind


def _at(path: str) -> str:
    return f"{shortened(path)!r} " if path else "it "
