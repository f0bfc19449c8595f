"""The metrics and labels that a PromQL expression names. Strict: what it does not know is an error."""

from __future__ import annotations

import re
from typing import NamedTuple

_TOKEN = re.compile(
    r"""
    (?P<space>\s+|\#[^\n]*)
  | (?P<text>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
  | (?P<range>\[[0-9smhdwy$_a-z:]+\])
  | (?P<name>[a-zA-Z_:][a-zA-Z0-9_:]*)
  | (?P<number>[0-9]+(?:\.[0-9]+)?(?:[smhdwy](?![a-zA-Z0-9_]))?)
  | (?P<symbol>=~|!~|!=|==|>=|<=|[-+*/%^<>=(){},])
    """,
    re.VERBOSE,
)
_WORDS = {"and", "or", "unless", "bool", "offset", "ignoring"}
_WITH_LABELS = {"by", "without", "on", "ignoring", "group_left", "group_right"}


class Selector(NamedTuple):
    """A metric and the labels that are matched."""

    metric: str
    labels: frozenset[str]


def parse(expression: str) -> tuple[list[Selector], set[str]]:
    """Return the selectors of an expression, and the labels by which it groups or joins.

    Raises ``ValueError`` for a character or a construct that is not known here.
    """
    tokens = _tokens(expression)
    selectors: list[Selector] = []
    grouped: set[str] = set()
    position = 0
    while position < len(tokens):
        kind, text = tokens[position]
        following = tokens[position + 1][1] if position + 1 < len(tokens) else ""
        position += 1
        if kind != "name":
            if text == "{":
                raise ValueError(f"a selector without a metric in {expression!r}")
            continue
        if text in _WITH_LABELS and following == "(":
            names, position = _until(tokens, position + 1, ")")
            grouped |= {name for kind, name in names if kind == "name"}
        elif text in _WORDS or following == "(" or text in _WITH_LABELS or _is_aggregation(tokens, position):
            continue  # an operator or a function
        else:
            labels: list[tuple[str, str]] = []
            if following == "{":
                labels, position = _until(tokens, position + 1, "}")
            selectors.append(Selector(text, frozenset(name for kind, name in labels if kind == "name")))
    return selectors, grouped


def _is_aggregation(tokens: list[tuple[str, str]], position: int) -> bool:
    """Return whether the word before this position is followed by its grouping: ``sum by (…)``."""
    return position < len(tokens) and tokens[position][1] in ("by", "without")


def _tokens(expression: str) -> list[tuple[str, str]]:
    tokens, position = [], 0
    while position < len(expression):
        match = _TOKEN.match(expression, position)
        if match is None:
            raise ValueError(f"unknown in PromQL: {expression[position:]!r}")
        position = match.end()
        if match.lastgroup != "space":
            tokens.append((str(match.lastgroup), match[0]))
    return tokens


def _until(tokens: list[tuple[str, str]], position: int, end: str) -> tuple[list[tuple[str, str]], int]:
    """Return the tokens up to ``end``, and the position after it."""
    texts = [text for _, text in tokens[position:]]
    if end not in texts:
        raise ValueError(f"{end} is missing")
    last = position + texts.index(end)
    return tokens[position:last], last + 1
