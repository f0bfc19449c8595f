"""What a schema's text means: read, compared, refused. Pure, and what was computed once is remembered.

AVRO only. For JSON Schema and PROTOBUF there is no kept library in Python that decides whether one version
reads another's data, and a registry that takes what it cannot check protects nobody.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import NamedTuple

from tieline.registry.model.avro_rules import problems
from tieline.registry.model.avro_text import text_of
from tieline.registry.model.avro_types import AvroType, InvalidSchema, Read, read
from tieline.registry.model.cache import Remembered

__all__ = ["TYPES", "InvalidSchema", "Parsed", "canonical_digest", "parse"]

TYPES = ("AVRO",)


class Facts(NamedTuple):
    """What a schema's text comes to."""

    canonical: str
    problems: tuple[str, ...]


_facts: Remembered[Facts] = Remembered(8_000_000)  # characters
_trees: Remembered[Read] = Remembered(2_000_000)  # characters; a tree takes some 20 bytes for each
_canonical: Remembered[bytes] = Remembered(200_000)


class Parsed:
    """An Avro schema that is read when it is asked about. ``digest``: stands for its text and references.

    Attributes raise ``InvalidSchema``, ``OverBudget``.
    """

    __slots__ = ("digest", "references", "text")

    def __init__(self, text: str, references: Mapping[str, str]) -> None:
        self.text = text
        self.references = tuple(references.values())
        self.digest = _digest(text, *self.references)

    @property
    def canonical(self) -> str:
        """Avro Java's own text: two schemas are the same where it is."""
        return self._known().canonical

    @property
    def problems(self) -> tuple[str, ...]:
        """Why clients on the JVM could not parse it; empty: they can."""
        return self._known().problems

    @property
    def normalized(self) -> str:
        """One text for schemas that say the same in another order of their attributes."""
        found = self._read()
        return self._canonical(text_of(found.schema, found.referred, normalized=True))

    @property
    def inlined(self) -> str:
        """All that it refers to written into it, where each is named for the first time."""
        return text_of(self._read().schema)

    @property
    def definition(self) -> AvroType:
        """The schema with its names resolved."""
        return self._read().schema

    def _known(self) -> Facts:
        def make() -> Facts:
            found = self._read()
            try:
                told = (*found.odd, *problems(found.schema))
                return Facts(self._canonical(text_of(found.schema, found.referred)), told)
            except RecursionError:  # a default inside itself, say
                raise InvalidSchema("not an Avro schema: a value is nested too deep") from None

        return _facts.get(self.digest, 2 * len(self.text), make)

    def _canonical(self, text: str) -> str:
        """A text that is its own canonical one, which is remembered."""
        _canonical.get(_digest(text, *self.references), 1, lambda: _digest(text))
        return text

    def _read(self) -> Read:
        weight = len(self.text) + sum(map(len, self.references))
        return _trees.get(self.digest, weight, lambda: read(self.text, self.references))


def parse(schema_type: str, text: str, references: Mapping[str, str]) -> Parsed:
    """Read a schema, as leniently as readers do. ``references``: texts of what it is built on, each behind
    what it needs itself.

    Raises ``InvalidSchema``, ``OverBudget``.
    """
    if schema_type not in TYPES:
        told = (
            f"{schema_type[:40]!r} schemas are not taken: there is nothing here to check them with; AVRO is"
        )
        raise InvalidSchema(told)
    found = Parsed(text, references)
    found.canonical  # noqa: B018  # whoever asks for a parsed schema wants to know now
    return found


def canonical_digest(schema: Parsed) -> bytes:
    """Stands for a schema's canonical text; remembered longer than that. Raises as ``parse``."""
    return _canonical.get(schema.digest, 1, lambda: _digest(schema.canonical))


def _digest(*texts: str) -> bytes:
    found = hashlib.blake2b(digest_size=16)
    for each in texts:
        data = each.encode("utf-8", "surrogatepass")
        found.update(len(data).to_bytes(8, "big") + data)
    return found.digest()
