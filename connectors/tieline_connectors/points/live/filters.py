"""A small language to filter points: ``value > 30 and unit == "degF"``; pure.

    expression := and_part ("or" and_part)*          and_part := not_part ("and" not_part)*
    not_part   := "not" not_part | "(" expression ")" | comparison
    comparison := field [ ("==" | "!=" | "<" | "<=" | ">" | ">=" | "~") literal ]

``~`` means "contains", without regard to case. A field alone must be a condition, such as ``stale``. A
comparison of a number with a text is false. Nothing is evaluated but this language.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

from tieline_connectors.points.live.point import UNREAD, LivePoint

Predicate: TypeAlias = Callable[[LivePoint, int], bool]
"""Whether a point is shown, at a time in microseconds."""

_MAX_LENGTH, _MAX_DEPTH = 500, 30
_TOKEN = re.compile(
    r"""\s*(?:(?P<number>[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)
    |(?P<text>"[^"]*"|'[^']*')
    |(?P<operator>==|!=|<=|>=|<|>|~|\(|\)|=)
    |(?P<word>[A-Za-z_]+))""",
    re.VERBOSE,
)
_FIELDS: Mapping[str, Callable[[LivePoint, int], Any]] = {
    "value": lambda point, now: None if point.value is UNREAD else point.value,
    "unit": lambda point, now: point.units or "",
    "type": lambda point, now: point.type,
    "platform": lambda point, now: point.name.platform,
    "device": lambda point, now: point.name.device,
    "point": lambda point, now: point.name.point,
    "topic": lambda point, now: point.topic,
    "age": lambda point, now: (now - point.time) / 1_000_000,
    "stale": lambda point, now: point.is_stale,
    "abnormal": lambda point, now: point.is_abnormal,
}
_ALIASES = {"units": "unit", "name": "point"}
_CONDITIONS = ("stale", "abnormal")
_LITERALS: Mapping[str, Any] = {"true": True, "false": False, "null": None}
_ORDER: Mapping[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


class FilterError(ValueError):
    """The text is not an expression; the message says where and what is expected."""


class _Token(NamedTuple):
    kind: str
    text: str
    start: int


def parse_filter(text: str) -> Predicate:
    """Return the condition that the text describes. Raises ``FilterError``."""
    if len(text) > _MAX_LENGTH:
        raise FilterError(f"The filter has more than {_MAX_LENGTH} letters")
    parser = _Parser(text, _tokens(text))
    predicate = parser.expression(0)
    parser.expect_end()
    return predicate


def _tokens(text: str) -> list[_Token]:
    tokens, position = [], 0
    while text[position:].strip():
        match = _TOKEN.match(text, position)
        if match is None:
            rest = text[position:].strip()
            raise FilterError(f"The filter cannot be read from {rest[:20]!r}. A text needs quotes")
        kind = str(match.lastgroup)
        tokens.append(_Token(kind, match[kind], match.start(kind)))
        position = match.end()
    return tokens


class _Parser:
    def __init__(self, text: str, tokens: list[_Token]) -> None:
        self._text = text
        self._tokens = tokens
        self._next = 0

    def expression(self, depth: int) -> Predicate:
        if depth > _MAX_DEPTH:
            raise FilterError(f"The filter is nested deeper than {_MAX_DEPTH} parentheses")
        parts = [self._all(depth)]
        while self._take("or"):
            parts.append(self._all(depth))
        if len(parts) == 1:
            return parts[0]
        return lambda point, now: any(part(point, now) for part in parts)

    def expect_end(self) -> None:
        if self._next < len(self._tokens):
            raise self._error("and, or, or the end")

    def _all(self, depth: int) -> Predicate:
        parts = [self._not(depth)]
        while self._take("and"):
            parts.append(self._not(depth))
        if len(parts) == 1:
            return parts[0]
        return lambda point, now: all(part(point, now) for part in parts)

    def _not(self, depth: int) -> Predicate:
        if self._take("not"):
            if depth > _MAX_DEPTH:
                raise FilterError(f"The filter has more than {_MAX_DEPTH} times not")
            negated = self._not(depth + 1)
            return lambda point, now: not negated(point, now)
        if self._take("("):
            inner = self.expression(depth + 1)
            if not self._take(")"):
                raise self._error(")")
            return inner
        return self._comparison()

    def _comparison(self) -> Predicate:
        token = self._peek()
        name = _ALIASES.get(token.text.lower(), token.text.lower()) if token else ""
        if token is None or token.kind != "word" or name not in _FIELDS:
            raise self._error(f"one of {', '.join(_FIELDS)}")
        self._next += 1
        read = _FIELDS[name]
        sign = self._peek()
        if sign is None or sign.kind != "operator" or sign.text in "()":
            if name not in _CONDITIONS:
                raise self._error("a comparison: ==, !=, <, <=, >, >= or ~")
            return lambda point, now: bool(read(point, now))
        self._next += 1
        literal = self._literal()
        compare = _comparison(sign.text, literal)
        return lambda point, now: compare(read(point, now))

    def _literal(self) -> Any:
        token = self._peek()
        if token is None:
            raise self._error("a number, a text in quotes, true, false or null")
        self._next += 1
        if token.kind == "text":
            return token.text[1:-1]
        if token.kind == "number":
            return float(token.text) if any(c in token.text for c in ".eE") else int(token.text)
        if token.kind == "word" and token.text.lower() in _LITERALS:
            return _LITERALS[token.text.lower()]
        self._next -= 1
        raise self._error("a number, a text in quotes, true, false or null")

    def _peek(self) -> _Token | None:
        return self._tokens[self._next] if self._next < len(self._tokens) else None

    def _take(self, text: str) -> bool:
        token = self._peek()
        if token is None or token.kind in ("text", "number") or token.text.lower() != text:
            return False
        self._next += 1
        return True

    def _error(self, expected: str) -> FilterError:
        token = self._peek()
        where = f"at {self._text[token.start :][:20]!r}" if token else "at its end"
        return FilterError(f"The filter cannot be read {where}: expected {expected}")


def _comparison(sign: str, literal: Any) -> Callable[[Any], bool]:
    if sign == "~":
        wanted = str(literal).lower()
        return lambda value: value is not None and wanted in str(value).lower()
    if sign in ("==", "="):
        return lambda value: _is_alike(value, literal) and bool(value == literal)
    if sign == "!=":
        return lambda value: not (_is_alike(value, literal) and value == literal)
    compare = _ORDER[sign]
    return lambda value: literal is not None and _is_alike(value, literal) and bool(compare(value, literal))


def _is_alike(value: Any, literal: Any) -> bool:
    """Return whether two values can be compared: numbers and booleans, or two of the same type."""
    if isinstance(literal, (int, float)):
        return isinstance(value, (int, float))
    return type(value) is type(literal)
