"""Reads YAML and JSON strictly: tags, anchors and aliases are rejected, duplicate keys reported."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, ClassVar, NamedTuple

import yaml


class Duplicate(NamedTuple):
    """A duplicate key of a map. Unknown lines are 0."""

    key: str
    line: int = 0
    first: int = 0

    def __str__(self) -> str:
        lines = f" (line {self.line}, first in line {self.first})" if self.line else ""
        return f"duplicate key{lines}; remove one of them"


class StrictLoader(yaml.SafeLoader):
    """A YAML loader. A subclass sets ``max_depth``, and ``yaml_implicit_resolvers`` for types beyond text."""

    max_depth: ClassVar[int]
    _depth = 0

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.duplicates: list[Duplicate] = []

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Return the next node. Raises ``yaml.YAMLError`` with its position."""
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
        """Return a map and note its duplicate keys. Raises ``ValueError`` for a key that is not text."""
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
    """Return the document and its duplicate keys. ``options`` are those of ``json.loads``."""
    duplicates: list[Duplicate] = []

    def read_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        return unique(((key, value, 0) for key, value in pairs), duplicates)

    return json.loads(text, object_pairs_hook=read_object, **options), duplicates


def unique(entries: Iterable[tuple[Any, Any, int]], duplicates: list[Duplicate]) -> dict[str, Any]:
    """Return the map of ``(key, value, line)``. A duplicate key keeps its last value and is noted.

    Raises ``ValueError`` for a key that is not text.
    """
    entry_map: dict[str, Any] = {}
    lines: dict[str, int] = {}
    for key, value, line in entries:
        if not isinstance(key, str):
            raise ValueError(f"a key is text, not {type(key).__name__}")
        if key in entry_map:
            duplicates.append(Duplicate(key, line, lines[key]))
        entry_map[key] = value
        lines.setdefault(key, line)
    return entry_map
