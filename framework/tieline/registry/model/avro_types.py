"""An Avro schema as a tree of types. Pure.

``avro_parser`` reads a tree from a text, ``avro_rules`` checks a new one, and ``avro_text`` writes it as Avro
Java does.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

PRIMITIVES = frozenset(("null", "boolean", "int", "long", "float", "double", "bytes", "string"))
NAMED = frozenset(("record", "error", "enum", "fixed"))

NO_DEFAULT: Any = object()


class InvalidSchemaError(ValueError):
    """A text that is not a schema. The message says why."""


@dataclass(slots=True, eq=False)
class Field:
    """A field of a record. ``default`` is as in the JSON, or ``NO_DEFAULT``."""

    name: str
    type: AvroType
    doc: str | None = None
    default: Any = NO_DEFAULT
    order: str = "ascending"
    aliases: tuple[str, ...] = ()
    props: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class AvroType:
    """A type. ``kind`` decides which attributes have a meaning.

    It is the name of a primitive type, record, error, enum, fixed, array, map or union. ``aliases`` are full
    names. ``inner`` has the type of items or values, or the branches of a union.
    """

    kind: str
    name: str = ""
    namespace: str = ""
    doc: str | None = None
    aliases: tuple[str, ...] = ()
    props: dict[str, Any] = field(default_factory=dict)
    fields: list[Field] = field(default_factory=list)
    symbols: list[str] = field(default_factory=list)
    default: str | None = None
    size: int = 0
    inner: list[AvroType] = field(default_factory=list)
    full_name: str = ""
    """The name with its namespace; the kind of an unnamed type."""

    def __post_init__(self) -> None:
        if not self.full_name:
            name = self.name or self.kind
            self.full_name = f"{self.namespace}.{self.name}" if self.namespace else name

    @property
    def is_named(self) -> bool:
        """Whether the type has a name of its own."""
        return self.kind in NAMED


def shorten(name: str) -> str:
    """Return a name for a message, shortened if it is very long."""
    return name if len(name) <= 200 else f"{name[:200]}…"
