"""Whether one version of an Avro schema reads what another wrote (Avro 1.12, "Schema Resolution"). Pure.

The rules are those of Apache Avro (``avro.compatibility``), with messages that name the field. One rule is
stricter, as in the specification: a decimal keeps its precision and scale, since a reader with another scale
would silently take the number for another one.

The time is proportional to the schemas' length, with two exceptions: unions whose branches have equal names
in other namespaces, and recursive types that repeat at another length. These end with the request's budget.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from tieline.registry.model.avro_schema import Parsed
from tieline.registry.model.avro_types import NO_DEFAULT, AvroType, shorten
from tieline.registry.model.budget import OverBudgetError, current_budget
from tieline.registry.model.cache import Cache

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

_MAX_MESSAGES = 20
_MAX_NAMES = 10
"""How many branches of a union, or symbols, a message names."""

_messages: Cache[list[str]] = Cache(20_000)  # the weight counts the messages, and one for each comparison


def incompatibilities(level: str, new: Parsed, earlier: Sequence[Parsed]) -> list[str]:
    """Return why a level forbids ``new``; empty if it does not.

    ``earlier``: the existing versions, newest last. The level decides which of them count.
    """
    if level == "NONE":
        return []
    counting = earlier if level.endswith("_TRANSITIVE") else earlier[-1:]
    messages: list[str] = []
    for back, old in enumerate(reversed(counting)):
        version = f"the latest version but {back}" if back else "the latest version"
        if not level.startswith("FORWARD"):
            messages += [f"what {version} wrote cannot be read: {each}" for each in differences(new, old)]
        if not level.startswith("BACKWARD"):
            messages += [f"{version} cannot read it: {each}" for each in differences(old, new)]
    return messages[:_MAX_MESSAGES]


def differences(reader: Parsed, writer: Parsed) -> list[str]:
    """Return where ``reader`` cannot read what ``writer`` wrote: one message per field.

    Raises ``InvalidSchemaError``, ``OverBudgetError``.
    """
    if reader.digest == writer.digest:
        return []

    def compute() -> list[str]:
        if (reader.canonical, reader.references) == (writer.canonical, writer.references):
            return []
        try:
            messages = _Comparison().compare(reader.definition, writer.definition, "")
            return list(dict.fromkeys(messages))[:_MAX_MESSAGES]
        except RecursionError:
            raise OverBudgetError from None

    return _messages.get((reader.digest, writer.digest), _MAX_MESSAGES, compute)


class _Comparison:
    """One comparison of two schemas. Pairs of types are compared once, so recursive types end."""

    def __init__(self) -> None:
        self._budget = current_budget()
        self._compared: dict[tuple[int, int], list[str]] = {}
        self._order: list[tuple[int, int]] = []
        self._branches: dict[int, dict[str, list[AvroType]]] = {}
        self._fields_by_name: dict[int, dict[str, AvroType]] = {}

    def compare(self, reader: AvroType, writer: AvroType, path: str) -> list[str]:
        pair = id(reader), id(writer)
        if pair not in self._compared:
            self._budget.spend()
            self._order.append(pair)
            self._compared[pair] = []  # a recursive type is readable if the rest of it is
            self._compared[pair] = self._compare(reader, writer, path)
        return self._compared[pair]

    # Each level of nesting takes few stack frames: schemas may be nested as deep as MAX_DEPTH.
    def _compare(self, reader: AvroType, writer: AvroType, path: str) -> list[str]:
        if reader is writer:
            return []
        if writer.kind == "union":
            messages: list[str] = []
            self._budget.spend(len(writer.inner) // 4)
            for branch in writer.inner:
                messages += self.compare(reader, branch, path)
                if len(messages) >= _MAX_MESSAGES:
                    break
            return messages
        if reader.kind == "union":
            return self._compare_with_union(reader, writer, path)
        if reader.kind != writer.kind:
            is_promoted = writer.kind in _PROMOTIONS.get(reader.kind, ())
            return [] if is_promoted else [_type_message(reader, writer, path)]
        if reader.kind in ("array", "map"):
            suffix = "[]" if reader.kind == "array" else "{}"
            return self.compare(reader.inner[0], writer.inner[0], path + suffix)
        if reader.is_named and not _is_same_name(reader, writer):
            names = f"{_describe(reader)} here and {_describe(writer)} there"
            return [f"{_place(path)}is {names}, without an alias"]
        if reader.kind in ("record", "error"):
            return self._compare_fields(reader, writer, path)
        return self._compare_simple(reader, writer, path)

    def _compare_simple(self, reader: AvroType, writer: AvroType, path: str) -> list[str]:
        if reader.kind == "enum":
            self._budget.spend((len(reader.symbols) + len(writer.symbols)) // 8)
            return _symbol_messages(reader, writer, path)
        if reader.kind == "fixed" and reader.size != writer.size:
            return [f"{_place(path)}has {reader.size} bytes here and {writer.size} there"]
        return _decimal_messages(reader, writer, path)

    def _compare_with_union(self, union: AvroType, writer: AvroType, path: str) -> list[str]:
        messages: list[str] = []
        for branch in self._branches_for(union, writer):
            known = len(self._order)
            failures = self.compare(branch, writer, path)
            if not failures:
                return []
            self._drop_assumed(known)
            if branch.kind == writer.kind:  # the branch that was probably meant has the better messages
                messages = messages or failures
        return messages or [f"{_place(path)}may not be {_describe(writer)}: {_describe(union)} lacks it"]

    def _branches_for(self, union: AvroType, writer: AvroType) -> Iterator[AvroType]:
        """Return the union's branches, except those that cannot read because of their kind or name."""
        by_key = self._branches.get(id(union))
        if by_key is None:
            self._budget.spend(len(union.inner))
            by_key = self._branches[id(union)] = {}
            for branch in union.inner:
                for key in dict.fromkeys(_branch_keys(branch)):
                    by_key.setdefault(key, []).append(branch)
        if not writer.is_named:
            for kind in (writer.kind, *_READERS_OF.get(writer.kind, ())):
                yield from by_key.get(kind, ())
            return
        by_name = by_key.get(f"{writer.kind} {writer.name}", [])
        yield from by_name
        by_alias = by_key.get(f"{writer.kind} alias {writer.full_name}", ())
        yield from (branch for branch in by_alias if branch not in by_name)

    def _drop_assumed(self, known: int) -> None:
        """Drop pairs found readable since then: the branch that they may have assumed readable is not."""
        since = self._order[known:]
        self._budget.spend(len(since) // 8)
        del self._order[known:]
        for pair in since:
            if self._compared[pair]:
                self._order.append(pair)
            else:
                del self._compared[pair]

    def _compare_fields(self, reader: AvroType, writer: AvroType, path: str) -> list[str]:
        self._budget.spend(len(reader.fields) // 4)
        written = self._fields_by_name.get(id(writer))
        if written is None:
            self._budget.spend(len(writer.fields) // 4)
            written = {field.name: field.type for field in writer.fields}
            self._fields_by_name[id(writer)] = written
        messages: list[str] = []
        for field in reader.fields:
            field_path = f"{path}.{field.name}" if path else field.name
            names = (field.name, *field.aliases)
            type_ = next((written[name] for name in names if name in written), None)
            if type_ is not None:
                messages += self.compare(field.type, type_, field_path)
            elif field.default is NO_DEFAULT:
                name = shorten(field_path)
                messages.append(f"the field {name!r} is missing there and has no default here; give it one")
            if len(messages) >= _MAX_MESSAGES:
                break
        return messages


def _branch_keys(branch: AvroType) -> Iterator[str]:
    if not branch.is_named:
        yield branch.kind
        return
    yield f"{branch.kind} {branch.name}"
    yield from (f"{branch.kind} alias {alias}" for alias in branch.aliases)


def _symbol_messages(reader: AvroType, writer: AvroType, path: str) -> list[str]:
    known = set(reader.symbols)
    missing = [symbol for symbol in writer.symbols if symbol not in known]
    if not missing or reader.default in known:
        return []
    names = ", ".join(shorten(symbol) for symbol in missing[:_MAX_NAMES])
    rest = f" and {len(missing) - _MAX_NAMES} more" if len(missing) > _MAX_NAMES else ""
    return [f"{_place(path)}lacks the symbol(s) {names}{rest} and has no default symbol"]


def _decimal_messages(reader: AvroType, writer: AvroType, path: str) -> list[str]:
    here, there = _precision_and_scale(reader), _precision_and_scale(writer)
    if here == there or here is None or there is None:
        return []
    return [f"{_place(path)}is a decimal of precision and scale {here} here and {there} there"]


def _precision_and_scale(schema: AvroType) -> tuple[Any, Any] | None:
    if schema.props.get("logicalType") != "decimal":
        return None
    return schema.props.get("precision"), schema.props.get("scale", 0)


def _is_same_name(reader: AvroType, writer: AvroType) -> bool:
    """Return whether the names match, without their namespaces, as in the specification; or an alias."""
    return reader.name == writer.name or writer.full_name in reader.aliases


def _type_message(reader: AvroType, writer: AvroType, path: str) -> str:
    return f"{_place(path)}is {_describe(reader)} here and {_describe(writer)} there"


def _describe(schema: AvroType) -> str:
    if schema.is_named:
        return f"the {schema.kind} {shorten(schema.full_name)}"
    if schema.kind == "union":
        names = [_describe(branch) for branch in schema.inner[:_MAX_NAMES]]
        rest = len(schema.inner) - len(names)
        return f"the union of {', '.join(names)}{f' and {rest} more' if rest else ''}"
    return schema.kind


def _place(path: str) -> str:
    return f"{shorten(path)!r} " if path else "it "
