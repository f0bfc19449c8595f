"""Whether one version of an Avro schema reads what another wrote (Avro 1.12, "Schema Resolution"). Pure.

The rules are those of Apache avro (``avro.compatibility``), told by the place in the data. One is stricter,
as the specification is: a decimal keeps its precision and scale, since a reader with another scale would
take the number for another one without a word.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tieline.registry.formats import Parsed

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

_AT_MOST = 20
"""So many messages are enough to begin with."""
_MOST_STEPS = 100_000
"""So many pairs of types are compared: two unions of 300 branches, of which none reads another."""
_BRANCHES = 10
"""So many of a union's branches are named in a message."""


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
    """Where ``reader`` cannot read what ``writer`` wrote: a sentence a place."""
    return _Check().of(reader.definition, writer.definition, "")


class _Check:
    def __init__(self) -> None:
        self._seen: dict[tuple[int, int], list[str]] = {}
        self._steps = 0

    def of(self, reader: Any, writer: Any, path: str) -> list[str]:
        pair = id(reader), id(writer)
        if pair not in self._seen:
            self._steps += 1
            if self._steps > _MOST_STEPS:
                return [f"{_at(path)}is too large to be compared"]
            self._seen[pair] = []  # a recursive type is readable if the rest of it is
            self._seen[pair] = self._compare(reader, writer, path)
        return self._seen[pair]

    def _compare(self, reader: Any, writer: Any, path: str) -> list[str]:
        if writer.type in ("union", "error_union"):
            told: list[str] = []
            for branch in writer.schemas:
                told += self.of(reader, branch, path)
                if len(told) >= _AT_MOST:
                    break
            return told
        if reader.type in ("union", "error_union"):
            return self._one_of(reader, writer, path)
        if reader.type != writer.type:
            return [] if writer.type in _PROMOTIONS.get(reader.type, ()) else [_types(reader, writer, path)]
        if reader.type == "array":
            return self.of(reader.items, writer.items, f"{path}[]")
        if reader.type == "map":
            return self.of(reader.values, writer.values, f"{path}{{}}")
        if reader.type in ("record", "error", "enum", "fixed") and not _same_name(reader, writer):
            return [f"{_at(path)}is {_name(reader)} here and {_name(writer)} there, without an alias"]
        if reader.type in ("record", "error"):
            return self._fields(reader, writer, path)
        if reader.type == "enum":
            return _symbols(reader, writer, path)
        if reader.type == "fixed" and reader.size != writer.size:
            return [f"{_at(path)}has {reader.size} bytes here and {writer.size} there"]
        return _decimals(reader, writer, path)

    def _one_of(self, reader: Any, writer: Any, path: str) -> list[str]:
        told: list[str] = []
        for branch in reader.schemas:
            known = len(self._seen)
            found = self.of(branch, writer, path)
            if not found:
                return []
            self._forget_assumed(known)
            if branch.type == writer.type:  # what is wrong with the one that was meant says more
                told = told or found
        return told or [f"{_at(path)}may not be {_name(writer)}: {_name(reader)} lacks it"]

    def _forget_assumed(self, known: int) -> None:
        """What was found readable since then may have been so only if the branch was, which it is not."""
        for pair in [pair for pair in list(self._seen)[known:] if not self._seen[pair]]:
            del self._seen[pair]

    def _fields(self, reader: Any, writer: Any, path: str) -> list[str]:
        there = writer.fields_dict
        found: list[str] = []
        for field in reader.fields:
            place = f"{path}.{field.name}" if path else field.name
            names = [field.name, *(field.props.get("aliases") or ())]
            known = next((there[name] for name in names if name in there), None)
            if known is not None:
                found += self.of(field.type, known.type, place)
            elif not field.has_default:
                found.append(f"the field {place!r} is missing there and has no default here; give it one")
        return found


def _symbols(reader: Any, writer: Any, path: str) -> list[str]:
    lacking = [symbol for symbol in writer.symbols if symbol not in reader.symbols]
    if not lacking or reader.props.get("default") in reader.symbols:
        return []
    return [f"{_at(path)}lacks the symbol(s) {', '.join(lacking)} and has no default symbol"]


def _decimals(reader: Any, writer: Any, path: str) -> list[str]:
    mine, theirs = _decimal(reader), _decimal(writer)
    if mine == theirs or mine is None or theirs is None:
        return []
    return [f"{_at(path)}is a decimal of precision and scale {mine} here and {theirs} there"]


def _decimal(schema: Any) -> tuple[Any, Any] | None:
    props = schema.other_props if hasattr(schema, "other_props") else {}
    if schema.props.get("logicalType", props.get("logicalType")) != "decimal":
        return None
    given = {**props, **schema.props}
    return given.get("precision"), given.get("scale", 0)


def _same_name(reader: Any, writer: Any) -> bool:
    """Without their namespaces, as the specification has it; an alias counts with and without."""
    space = f"{reader.namespace}." if reader.namespace else ""
    aliases = {name if "." in name else space + name for name in reader.props.get("aliases") or ()}
    return reader.name == writer.name or writer.fullname in aliases


def _types(reader: Any, writer: Any, path: str) -> str:
    return f"{_at(path)}is {_name(reader)} here and {_name(writer)} there"


def _name(schema: Any) -> str:
    if schema.type in ("record", "error", "enum", "fixed"):
        return f"the {schema.type} {schema.fullname}"
    if schema.type in ("union", "error_union"):
        named = [_name(branch) for branch in schema.schemas[:_BRANCHES]]
        more = len(schema.schemas) - len(named)
        return f"the union of {', '.join(named)}{f' and {more} more' if more else ''}"
    return str(schema.type)


def _at(path: str) -> str:
    return f"{path!r} " if path else "it "
