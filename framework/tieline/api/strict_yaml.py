"""YAML from outside, without what it can do beyond plain data: tags, anchors and aliases are refused."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

import yaml


class StrictLoader(yaml.SafeLoader):
    """Give a subclass its ``max_depth``, and its ``yaml_implicit_resolvers``: what is more than text."""

    max_depth: ClassVar[int]
    _depth = 0

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
        """Raises ``ValueError`` for a key that is no text, or there twice."""
        return once((self.construct_object(k, True), self.construct_object(v, True)) for k, v in node.value)


def once(pairs: Iterable[tuple[Any, Any]]) -> dict[str, Any]:
    """A map whose keys stand there once; YAML and JSON would take the last without a word.

    For ``object_pairs_hook`` of ``json.loads`` too. What is said shows no value: it may be a secret.
    """
    found: dict[str, Any] = {}
    for key, value in pairs:
        if not isinstance(key, str):
            raise ValueError(f"a key is text, not {type(key).__name__}")
        if key in found:
            raise ValueError(f"the key {key} is there twice in one map")
        found[key] = value
    return found
