"""A schema's text as Avro Java's ``Schema.toString()`` writes it; it decides whether two are the same. Pure.

``docs/reference/schema-registry.md`` has the rules; ``tests/unit/registry/model/avro_java`` has a table
that the library made.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

from tieline.registry.model.avro_types import NAMED, NO_DEFAULT, PRIMITIVES, AvroType, Field

_TAKEN = (PRIMITIVES | NAMED | {"array", "map", "union"}) - {"error"}
"""Names that alone would be taken for a kind of type."""
_ESCAPED = re.compile(r'[\x00-\x1f"\\]')
JAVA_NUMBER = re.compile(r"[+-]?(?:NaN|Infinity|(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?[fFdD]?)", re.ASCII)
"""A text that Java reads as a double."""
_SHORT = {"\b": "\\b", "\t": "\\t", "\n": "\\n", "\f": "\\f", "\r": "\\r", '"': '\\"', "\\": "\\\\"}


def text_of(schema: AvroType, referred: Iterable[AvroType] = (), *, normalized: bool = False) -> str:
    """The text. What is ``referred`` to is only named, never written out.

    ``normalized``: attributes without a meaning of their own are sorted by name, aliases too; so schemas that
    say the same in another order have one text.
    """
    writer = _Writer({each.full_name for each in referred if each.is_named}, normalized)
    writer.type(schema, "")
    return "".join(writer.out)


class _Writer:
    def __init__(self, named: set[str], normalized: bool) -> None:
        self.out: list[str] = []
        self._named = named
        self._normalized = normalized

    def type(self, part: AvroType, space: str) -> None:
        add = self.out.append
        if part.kind == "union":
            add("[")
            for at, branch in enumerate(part.inner):
                if at:
                    add(",")
                self.type(branch, space)
            add("]")
        elif part.is_named:
            self._defined(part, space)
        elif part.kind in ("array", "map"):
            add(f'{{"type":"{part.kind}","{"items" if part.kind == "array" else "values"}":')
            self.type(part.inner[0], space)
            self._props(part.props)
            add("}")
        elif part.props:
            add(f'{{"type":"{part.kind}"')
            self._props(part.props)
            add("}")
        else:
            add(f'"{part.kind}"')

    def _defined(self, part: AvroType, space: str) -> None:
        full = part.full_name
        if full in self._named:
            # A name without its namespace, where that is the one around it and nothing else is called so.
            short = part.space == space and part.name not in _TAKEN
            self.out.append(_string(part.name if short else full))
            return
        self._named.add(full)
        add = self.out.append
        add(f'{{"type":"{part.kind}","name":{_string(part.name)}')
        if part.space != space:
            add(f',"namespace":{_string(part.space)}')
        if part.doc is not None:
            add(f',"doc":{_string(part.doc)}')
        if part.kind == "enum":
            add(f',"symbols":[{",".join(map(_string, part.symbols))}]')
            if part.default is not None:
                add(f',"default":{_string(part.default)}')
        elif part.kind == "fixed":
            add(f',"size":{part.size}')
        else:
            add(',"fields":[')
            for at, field in enumerate(part.fields):
                if at:
                    add(",")
                self._field(field, part.space)
            add("]")
        self._props(part.props)
        self._aliases(dict.fromkeys(_within(alias, part.space) for alias in part.aliases))
        add("}")

    def _field(self, field: Field, space: str) -> None:
        add = self.out.append
        add(f'{{"name":{_string(field.name)},"type":')
        self.type(field.type, space)
        if field.doc is not None:
            add(f',"doc":{_string(field.doc)}')
        if field.default is not NO_DEFAULT:
            add(f',"default":{_json(default_of(field))}')
        if field.order != "ascending":
            add(f',"order":"{field.order}"')
        self._aliases(field.aliases)
        self._props(field.props)
        add("}")

    def _props(self, props: dict[str, Any]) -> None:
        for key in sorted(props) if self._normalized else props:
            self.out.append(f",{_string(key)}:{_json(props[key], self._normalized)}")

    def _aliases(self, aliases: Iterable[str]) -> None:
        found = sorted(aliases) if self._normalized else list(aliases)
        if found:
            self.out.append(f',"aliases":[{",".join(map(_string, found))}]')


def _within(name: str, space: str) -> str:
    """A full name as it is written inside a namespace."""
    before, _, short = name.rpartition(".")
    return short if before == space and short not in _TAKEN else name


def default_of(field: Field) -> Any:
    """A field's default as Java has it: of a number's field, a text is read as a number."""
    text = field.default
    if field.type.kind in ("float", "double") and isinstance(text, str):
        return float(text.strip().rstrip("fFdD")) if JAVA_NUMBER.fullmatch(text.strip()) else text
    return text


def _json(value: Any, by_name: bool = False) -> str:
    if isinstance(value, str):
        return _string(value)
    if isinstance(value, float):
        return _number(value)
    if isinstance(value, list):
        return f"[{','.join(_json(each, by_name) for each in value)}]"
    if isinstance(value, dict):
        keys = sorted(value) if by_name else value
        return f"{{{','.join(f'{_string(key)}:{_json(value[key], by_name)}' for key in keys)}}}"
    return json.dumps(value)


def _string(text: str) -> str:
    """As Jackson: only what must be escaped is."""
    return f'"{_ESCAPED.sub(_escaped, text)}"'


def _escaped(match: re.Match[str]) -> str:
    return _SHORT.get(match[0]) or f"\\u{ord(match[0]):04X}"


def _number(value: float) -> str:
    """As ``Double.toString``: the shortest digits that mean it, with an exponent outside 10⁻³ to 10⁷."""
    if value != value or value in (float("inf"), float("-inf")):
        return '"NaN"' if value != value else '"Infinity"' if value > 0 else '"-Infinity"'
    if value == 0 or 1e-3 <= abs(value) < 1e7:
        return repr(value)
    digits, _, exponent = f"{value!r}".partition("e")
    if not exponent:  # Python writes it without one up to 10¹⁶
        digits, exponent = _with_exponent(digits)
    return f"{digits if '.' in digits else f'{digits}.0'}E{int(exponent)}"


def _with_exponent(text: str) -> tuple[str, str]:
    sign, number = ("-", text[1:]) if text[0] == "-" else ("", text)
    whole, _, fraction = number.partition(".")
    digits = (whole + fraction).lstrip("0").rstrip("0") or "0"
    first = len(whole) - 1 if whole.strip("0") else -(len(fraction) - len(fraction.lstrip("0")) + 1)
    return f"{sign}{digits[0]}.{digits[1:] or '0'}", str(first)
