"""What a registry holds under an id, as a schema to read by; pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from tieline.api import Schema
from tieline.registry.model.avro_schema import Parsed
from tieline.registry.model.budget import LONG, OverBudget, limited
from tieline.registry.model.events import Reference

MAX_REFERENCES = 200
MAX_DEPTH = 32
MAX_CHARACTERS = 4_000_000
"""Of all schemas that one refers to, together."""

_STEPS = 20 * LONG  # enough for so many characters

_KINDS = {"JSON": "JSON Schema", "PROTOBUF": "Protobuf"}


def readable_schema(schema_id: int, kind: str, text: str) -> Schema:
    """The schema of an id; ``kind`` is its ``schemaType``. Raises ``ValueError``, with the fix."""
    if kind != "AVRO":
        name = _KINDS.get(kind, "of another kind")
        raise ValueError(
            f"the schema with id {schema_id} is {name} (schemaType {kind[:40]}), and the avro converter reads"
            " only Avro. Set value.converter (or key.converter) to bytes, or to a plugin for this format, or"
            " have the producer write Avro"
        )
    return Schema.lenient(text)


def resolve(
    references: Iterable[Reference], version: Callable[[Reference], tuple[str, Iterable[Reference]]]
) -> dict[str, str]:
    """Name → text of all that a schema refers to, each behind what it needs itself.

    ``version``: the text of a reference, and its own references. Of two versions under one name the first
    counts, as in Confluent's clients. Raises ``ValueError`` where there is no end, and what ``version``
    raises.
    """
    texts: dict[str, str] = {}
    known: dict[Reference, str] = {}
    path: list[Reference] = []
    waiting = [(reference, False) for reference in reversed(list(references))]
    characters = 0
    while waiting:
        reference, is_resolved = waiting.pop()
        if is_resolved:
            path.pop()
            texts.setdefault(reference.name, known[reference])
            continue
        if reference in path:
            raise ValueError(f"a schema refers to itself, through {_named(reference)}")
        if reference in known:
            continue
        text, inner = version(reference)
        characters += len(text)
        known[reference] = text
        path.append(reference)
        if len(known) > MAX_REFERENCES or len(path) > MAX_DEPTH or characters > MAX_CHARACTERS:
            raise ValueError(
                f"a schema refers to too much, at {_named(reference)}: more than {MAX_REFERENCES} schemas,"
                f" {MAX_DEPTH} levels or {MAX_CHARACTERS} characters"
            )
        waiting.append((reference, True))
        waiting += [(each, False) for each in reversed(list(inner))]
    return texts


def written_out(text: str, references: Mapping[str, str]) -> str:
    """A schema with all that it refers to written into it. Raises ``ValueError``."""
    try:
        with limited(_STEPS):
            return Parsed(text, references).inlined
    except (OverBudget, RecursionError) as error:
        raise ValueError(f"not an Avro schema: {type(error).__name__}: {error}") from error


def _named(reference: Reference) -> str:
    return f"{reference.name!r} (subject {reference.subject!r}, version {reference.version})"
