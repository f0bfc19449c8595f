"""A schema that is parsed on demand. Pure; results are cached.

Only Avro is supported. No maintained Python library decides whether one version of a JSON Schema or a
Protobuf schema reads another version's data, and a registry must not accept what it cannot check.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import NamedTuple

from tieline.registry.model.avro_parser import Tree, read_tree
from tieline.registry.model.avro_rules import problems
from tieline.registry.model.avro_text import text_of
from tieline.registry.model.avro_types import AvroType, InvalidSchemaError
from tieline.registry.model.cache import Cache

__all__ = ["TYPES", "InvalidSchemaError", "Parsed", "canonical_digest", "parse"]

TYPES = ("AVRO",)


class _Summary(NamedTuple):
    """What is kept of a schema longer than its tree."""

    canonical: str
    problems: tuple[str, ...]


_summaries: Cache[_Summary] = Cache(8_000_000)  # characters
_trees: Cache[Tree] = Cache(2_000_000)  # characters; a tree takes about 20 bytes for each
_canonical_digests: Cache[bytes] = Cache(200_000)


class Parsed:
    """An Avro schema that is parsed when a property is read. ``digest`` identifies its text and references.

    Properties raise ``InvalidSchemaError`` and ``OverBudgetError``.
    """

    __slots__ = ("digest", "references", "text")

    def __init__(self, text: str, references: Mapping[str, str]) -> None:
        self.text = text
        self.references = tuple(references.values())
        self.digest = _digest(text, *self.references)

    @property
    def canonical(self) -> str:
        """The text that Avro Java writes. Two schemas are the same if this text is."""
        return self._summary().canonical

    @property
    def problems(self) -> tuple[str, ...]:
        """Why clients on the JVM cannot parse it; empty if they can."""
        return self._summary().problems

    @property
    def normalized(self) -> str:
        """One text for all schemas that differ only in the order of their attributes."""
        tree = self._tree()
        return self._remember_canonical(text_of(tree.schema, tree.references, normalized=True))

    @property
    def inlined(self) -> str:
        """The text in which each referenced schema is written where it is first named."""
        return text_of(self._tree().schema)

    @property
    def definition(self) -> AvroType:
        """The schema with all names resolved."""
        return self._tree().schema

    def _summary(self) -> _Summary:
        def compute() -> _Summary:
            tree = self._tree()
            try:
                faults = (*tree.deviations, *problems(tree.schema))
                canonical = self._remember_canonical(text_of(tree.schema, tree.references))
                return _Summary(canonical, faults)
            except RecursionError:  # such as a default value that is nested too deep
                raise InvalidSchemaError("not an Avro schema: a value is nested too deep") from None

        return _summaries.get(self.digest, 2 * len(self.text), compute)

    def _remember_canonical(self, text: str) -> str:
        """Return a canonical text, and remember that it is its own canonical text."""
        _canonical_digests.get(_digest(text, *self.references), 1, lambda: _digest(text))
        return text

    def _tree(self) -> Tree:
        weight = len(self.text) + sum(map(len, self.references))
        return _trees.get(self.digest, weight, lambda: read_tree(self.text, self.references))


def parse(schema_type: str, text: str, references: Mapping[str, str]) -> Parsed:
    """Parse a schema as leniently as readers do.

    ``references``: the texts of the schemas that it refers to, by name; each follows its own references.

    Raises ``InvalidSchemaError``, ``OverBudgetError``.
    """
    if schema_type not in TYPES:
        raise InvalidSchemaError(
            f"{schema_type[:40]!r} schemas are not supported, since they cannot be checked here. Use AVRO"
        )
    schema = Parsed(text, references)
    schema.canonical  # noqa: B018  # raises now if the text is not a schema
    return schema


def canonical_digest(schema: Parsed) -> bytes:
    """Return the digest of a schema's canonical text, cached longer than the text. Raises as ``parse``."""
    return _canonical_digests.get(schema.digest, 1, lambda: _digest(schema.canonical))


def _digest(*texts: str) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    for each in texts:
        data = each.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "big") + data)
    return digest.digest()
