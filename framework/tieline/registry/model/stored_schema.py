"""Turn what a registry stores under an id into a schema to read records by. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from tieline.api import Schema
from tieline.registry.model.avro_schema import Parsed
from tieline.registry.model.budget import LONG, OverBudgetError, step_limit
from tieline.registry.model.events import Reference

MAX_REFERENCES = 200
MAX_DEPTH = 32
MAX_CHARACTERS = 4_000_000
"""The length of all schemas that one schema refers to, together."""

_STEPS = 20 * LONG  # enough for this many characters

_KINDS = {"JSON": "JSON Schema", "PROTOBUF": "Protobuf"}


def parse_stored_schema(schema_id: int, kind: str, text: str) -> Schema:
    """Return the schema of an id; ``kind`` is its ``schemaType``. Raises ``ValueError`` with the fix."""
    if kind != "AVRO":
        name = _KINDS.get(kind, "of another kind")
        raise ValueError(
            f"the schema with id {schema_id} is {name} (schemaType {kind[:40]}), and the avro converter reads"
            " only Avro. Set value.converter (or key.converter) to bytes, or to a plugin for this format, or"
            " have the producer write Avro"
        )
    return Schema.lenient(text)


def resolve_references(
    references: Iterable[Reference], fetch: Callable[[Reference], tuple[str, Iterable[Reference]]]
) -> dict[str, str]:
    """Return the texts of all schemas that a schema refers to, by name. Each follows its own references.

    ``fetch`` returns the text of a reference and its own references; what it raises is passed on. If two
    versions have the same name, the first one counts, as in Confluent's clients. Raises ``ValueError`` if
    references form a cycle or exceed a limit.
    """
    texts: dict[str, str] = {}
    fetched: dict[Reference, str] = {}
    path: list[Reference] = []
    stack = [(reference, False) for reference in reversed(list(references))]
    characters = 0
    while stack:
        reference, is_resolved = stack.pop()
        if is_resolved:
            path.pop()
            texts.setdefault(reference.name, fetched[reference])
            continue
        if reference in path:
            raise ValueError(f"a schema refers to itself, through {_describe(reference)}")
        if reference in fetched:
            continue
        text, inner = fetch(reference)
        characters += len(text)
        fetched[reference] = text
        path.append(reference)
        if len(fetched) > MAX_REFERENCES or len(path) > MAX_DEPTH or characters > MAX_CHARACTERS:
            raise ValueError(
                f"a schema refers to too much, at {_describe(reference)}: more than {MAX_REFERENCES} schemas,"
                f" {MAX_DEPTH} levels or {MAX_CHARACTERS} characters"
            )
        stack.append((reference, True))
        stack += [(each, False) for each in reversed(list(inner))]
    return texts


def inline_references(text: str, references: Mapping[str, str]) -> str:
    """Return a schema's text with all schemas that it refers to written into it. Raises ``ValueError``."""
    try:
        with step_limit(_STEPS):
            return Parsed(text, references).inlined
    except (OverBudgetError, RecursionError) as error:
        raise ValueError(f"not an Avro schema: {type(error).__name__}: {error}") from error


def _describe(reference: Reference) -> str:
    return f"{reference.name!r} (subject {reference.subject!r}, version {reference.version})"
