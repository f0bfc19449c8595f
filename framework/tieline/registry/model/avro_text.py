"""Write a schema as Avro Java's ``Schema.toString()`` does. Two schemas are the same if this text is. Pure.

``docs/reference/schema-registry.md`` has the rules, ``tests/unit/registry/model/avro_java`` a table that
Avro Java wrote.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

from tieline.registry.model.avro_types import NAMED, NO_DEFAULT, PRIMITIVES, AvroType, Field

_TAKEN = (PRIMITIVES | NAMED | {"array", "map", "union"}) - {"error"}
"""Names that mean a kind of type when they stand alone."""
_ESCAPED = re.compile(r'[\x00-\x1f"\\]')
JAVA_NUMBER = re.compile(r"[+-]?(?:NaN|Infinity|(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?[fFdD]?)", re.ASCII)
"""A text that Java parses as a double."""
_SHORT = {"\b": "\\b", "\t": "\\t", "\n": "\\n", "\f": "\\f", "\r": "\\r", '"': '\\"', "\\": "\\\\"}


def text_of(schema: AvroType, references: Iterable[AvroType] = (), *, normalized: bool = False) -> str:
    """Return the text of a schema. Types in ``references`` are only named, never written.

    ``normalized``: unknown attributes and aliases are sorted by name. Schemas that differ only in their order
    have the same text then.
    """
    writer = _Writer({each.full_name for each in references if each.is_named}, normalized)
    writer.type(schema, "")
    return "".join(writer.out)


class _Writer:
    def __init__(self, named: set[str], normalized: bool) -> None:
        self.out: list[str] = []
        self._named = named
        self._normalized = normalized

    def type(self, part: AvroType, namespace: str) -> None:
        add = self.out.append
        if part.kind == "union":
            add("[")
            for index, branch in enumerate(part.inner):
                if index:
                    add(",")
                self.type(branch, namespace)
            add("]")
        elif part.is_named:
            self._named_type(part, namespace)
        elif part.kind in ("array", "map"):
            add(f'{{"type":"{part.kind}","{"items" if part.kind == "array" else "values"}":')
            self.type(part.inner[0], namespace)
            self._props(part.props)
            add("}")
        elif part.props:
            add(f'{{"type":"{part.kind}"')
            self._props(part.props)
            add("}")
        else:
            add(f'"{part.kind}"')

    def _named_type(self, part: AvroType, namespace: str) -> None:
        full_name = part.full_name
        if full_name in self._named:
            # The short name, if it means this type in the enclosing namespace.
            is_short = part.namespace == namespace and part.name not in _TAKEN
            self.out.append(_string(part.name if is_short else full_name))
            return
        self._named.add(full_name)
        add = self.out.append
        add(f'{{"type":"{part.kind}","name":{_string(part.name)}')
        if part.namespace != namespace:
            add(f',"namespace":{_string(part.namespace)}')
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
            for index, field in enumerate(part.fields):
                if index:
                    add(",")
                self._field(field, part.namespace)
            add("]")
        self._props(part.props)
        self._aliases(dict.fromkeys(_relative_name(alias, part.namespace) for alias in part.aliases))
        add("}")

    def _field(self, field: Field, namespace: str) -> None:
        add = self.out.append
        add(f'{{"name":{_string(field.name)},"type":')
        self.type(field.type, namespace)
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
        names = sorted(aliases) if self._normalized else list(aliases)
        if names:
            self.out.append(f',"aliases":[{",".join(map(_string, names))}]')


def _relative_name(name: str, namespace: str) -> str:
    """Return a full name as it is written inside a namespace."""
    own_namespace, _, short = name.rpartition(".")
    return short if own_namespace == namespace and short not in _TAKEN else name


def default_of(field: Field) -> Any:
    """Return a field's default as Java has it: a string as the default of a number is parsed as a number."""
    default = field.default
    if field.type.kind in ("float", "double") and isinstance(default, str):
        text = default.strip()
        return float(text.rstrip("fFdD")) if JAVA_NUMBER.fullmatch(text) else default
    return default


def _json(value: Any, sort_keys: bool = False) -> str:
    if isinstance(value, str):
        return _string(value)
    if isinstance(value, float):
        return _number(value)
    if isinstance(value, list):
        return f"[{','.join(_json(each, sort_keys) for each in value)}]"
    if isinstance(value, dict):
        keys = sorted(value) if sort_keys else value
        return f"{{{','.join(f'{_string(key)}:{_json(value[key], sort_keys)}' for key in keys)}}}"
    return json.dumps(value)


def _string(text: str) -> str:
    """Return a JSON string as Jackson writes it: only what must be escaped is escaped."""
    return f'"{_ESCAPED.sub(_escape, text)}"'


def _escape(match: re.Match[str]) -> str:
    return _SHORT.get(match[0]) or f"\\u{ord(match[0]):04X}"


def _number(value: float) -> str:
    """Return a number as ``Double.toString`` does: shortest digits, with an exponent outside 10⁻³ to 10⁷."""
    if value != value or value in (float("inf"), float("-inf")):
        return '"NaN"' if value != value else '"Infinity"' if value > 0 else '"-Infinity"'
    if value == 0 or 1e-3 <= abs(value) < 1e7:
        return repr(value)
    digits, _, exponent = f"{value!r}".partition("e")
    if not exponent:  # Python writes numbers up to 10¹⁶ without one
        digits, exponent = _with_exponent(digits)
    return f"{digits if '.' in digits else f'{digits}.0'}E{int(exponent)}"


def _with_exponent(text: str) -> tuple[str, str]:
    sign, number = ("-", text[1:]) if text[0] == "-" else ("", text)
    whole, _, fraction = number.partition(".")
    digits = (whole + fraction).lstrip("0").rstrip("0") or "0"
    first = len(whole) - 1 if whole.strip("0") else -(len(fraction) - len(fraction.lstrip("0")) + 1)
    return f"{sign}{digits[0]}.{digits[1:] or '0'}", str(first)
