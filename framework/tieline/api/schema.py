"""Avro schemas: parsed once, compared by fingerprint, shared by reference."""

from __future__ import annotations

import functools
import json
import re
from importlib import resources
from typing import Any

import fastavro

from tieline.api.readable import readable

_BRACKETS = re.compile(r"[\[\]{}]")
_MAX_DEPTH = 200  # a deeper schema, as an attacker might write, would overflow the C stack of the parser


class Schema:
    """An Avro schema. Two schemas are equal if their JSON is equal apart from white space.

    ``text`` is compact JSON with documentation, as a registry stores it. ``name`` is the full name of a named
    type, else the type (``"string"``). ``parsed`` is the form for fastavro's readers and writers. Raises
    ``ValueError`` on a text that is not an Avro schema (Avro 1.11 specification).
    """

    __slots__ = ("_hash", "definition", "name", "parsed", "text")

    def __init__(self, text: str, *, strict: bool = True) -> None:
        if _depth(text) > _MAX_DEPTH:
            raise ValueError(f"not an Avro schema: nested deeper than {_MAX_DEPTH}")
        try:
            self.definition: Any = json.loads(text)
            if strict and any(_claims_to_be_parsed(part) for part in _parts(self.definition)):
                raise ValueError("attributes that begin with two underscores are not allowed")
            parsed = parsed_once(self.definition if strict else readable(self.definition))
            self.text = json.dumps(self.definition, separators=(",", ":"), allow_nan=False)
        except Exception as error:  # fastavro raises many kinds on an invalid schema
            raise ValueError(f"not an Avro schema: {type(error).__name__}: {error}") from error
        self.parsed = parsed
        self._hash = hash(self.text)
        is_named = isinstance(parsed, dict) and "name" in parsed
        self.name = str(parsed["name"] if is_named else _type_of(self.definition))

    @staticmethod
    @functools.lru_cache(maxsize=1024)
    def parse(text: str) -> Schema:
        """Return the schema of a text; the same object for the same text."""
        return Schema(text)

    @staticmethod
    @functools.lru_cache(maxsize=1024)
    def lenient(text: str) -> Schema:
        """Return the schema of a stored text; parts that reading does not need are not checked.

        Wrong defaults, invalid logical types, aliases, and symbols that are not names are ignored, in
        ``parsed`` only. Raises ``ValueError`` on a text that cannot be used for reading.
        """
        try:
            return Schema.parse(text)
        except ValueError:
            return Schema(text, strict=False)

    @staticmethod
    @functools.lru_cache(maxsize=256)
    def named(name: str) -> Schema:
        """Return a schema of the ``schemas/`` folder by its full name, such as ``volttron.DeviceReading``."""
        owner, _, short = name.rpartition(".")
        file = resources.files("tieline_schemas").joinpath(owner, f"{short}.avsc")
        return Schema.parse(file.read_text("utf-8"))

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Schema) and self.text == other.text)

    def __hash__(self) -> int:
        return self._hash

    def __repr__(self) -> str:
        return f"Schema({self.name})"


def _parts(definition: Any) -> list[Any]:
    """Return the parts in which fastavro looks for its hint: the schema, or the branches of a union."""
    return definition if isinstance(definition, list) else [definition]


def parsed_once(definition: Any) -> Any:
    """Return a schema for fastavro, with the hint that prevents another parsing for every value.

    Parsing takes a third of the time, and a second parsing is wrong: fastavro drops an empty namespace, so
    that a name without one inherits the outer one. For arrays and maps it drops the hint.
    """
    named: dict[str, Any] = {}
    parsed: Any = fastavro.parse_schema(definition, named)
    for part in parsed if isinstance(parsed, list) else [parsed]:
        if isinstance(part, dict):
            part.setdefault("__fastavro_parsed", True)
            part.setdefault("__named_schemas", named)
    return parsed


def _claims_to_be_parsed(part: Any) -> bool:
    return isinstance(part, dict) and any(key.startswith("__") for key in part)


def _depth(text: str) -> int:
    """Return how deep a JSON text is nested, or more: brackets inside strings count, too."""
    depth = deepest = 0
    for bracket in _BRACKETS.finditer(text):
        depth += 1 if bracket[0] in "[{" else -1
        deepest = max(deepest, depth)
    return deepest


def _type_of(definition: Any) -> str:
    """Return the type's name; readers accept a type inside the attribute of another."""
    while isinstance(definition, dict):
        definition = definition.get("type")
    return "union" if isinstance(definition, list) else str(definition)
