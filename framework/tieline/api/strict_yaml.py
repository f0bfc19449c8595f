"""YAML from outside, without what it can do beyond plain data: tags, anchors and aliases are refused."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, ClassVar, NamedTuple

import yaml


class Duplicate(NamedTuple):
    """A key that a map has already. The lines are 0 where they are not known."""

    key: str
    line: int = 0
    first: int = 0

    def __str__(self) -> str:
        lines = f" (line {self.line}, first in line {self.first})" if self.line else ""
        return f"duplicate key{lines}; remove one of them"


class StrictLoader(yaml.SafeLoader):
    """Give a subclass its ``max_depth``, and its ``yaml_implicit_resolvers``: what is more than text."""

    max_depth: ClassVar[int]
    _depth = 0

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.duplicates: list[Duplicate] = []

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Raises ``yaml.YAMLError`` with the place."""
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise yaml.composer.ComposerError(None, None, "anchors and aliases are refused", event.start_mark)
        if getattr(event, "tag", None) is not None:
            raise yaml.composer.ComposerError(None, None, "tags are refused", event.start_mark)
        self._depth += 1
        if self._depth > self.max_depth:
            raise yaml.composer.ComposerError(None, None, "nested too deep", event.start_mark)
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        """Raises ``ValueError`` for a key that is not text."""
        return unique(
            (
                (self.construct_object(k, True), self.construct_object(v, True), k.start_mark.line + 1)
                for k, v in node.value
            ),
            self.duplicates,
        )


def load_yaml(text: str, loader: type[StrictLoader]) -> tuple[Any, list[Duplicate]]:
    """Return the document, and its duplicate keys. Raises ``yaml.YAMLError``, ``ValueError``."""
    reader = loader(text)
    try:
        return reader.get_single_data(), reader.duplicates
    finally:
        reader.dispose()


def load_json(text: str, **options: Any) -> tuple[Any, list[Duplicate]]:
    """Return the document, and its duplicate keys. Raises ``ValueError``. ``options``: of ``json.loads``."""
    duplicates: list[Duplicate] = []

    def read_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        return unique(((key, value, 0) for key, value in pairs), duplicates)

    return json.loads(text, object_pairs_hook=read_object, **options), duplicates


def unique(entries: Iterable[tuple[Any, Any, int]], duplicates: list[Duplicate]) -> dict[str, Any]:
    """Return the map of ``(key, value, line)``; of a duplicate key the last value, noted in ``duplicates``.

    Raises ``ValueError`` for a key that is not text.
    """
    found: dict[str, Any] = {}
    lines: dict[str, int] = {}
    for key, value, line in entries:
        if not isinstance(key, str):
            raise ValueError(f"a key is text, not {type(key).__name__}")
        if key in found:
            duplicates.append(Duplicate(key, line, lines[key]))
        found[key] = value
        lines.setdefault(key, line)
    return found
