"""Find what a registry has of a schema: references, canonical text, ids and versions. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from tieline.registry.model import errors
from tieline.registry.model.avro_schema import InvalidSchemaError, Parsed, canonical_digest, parse
from tieline.registry.model.errors import RegistryError
from tieline.registry.model.events import Content, Reference
from tieline.registry.model.state import Subjects, Version

_MAX_REFERENCES = 1000  # of one schema, direct and indirect
_MAX_EDGES = 20_000  # between them
_MAX_CHARACTERS = 8_000_000  # of all of them


def resolve_references(
    state: Subjects, references: Iterable[Reference], *, deleted: bool = False
) -> dict[str, str]:
    """Return the texts of all schemas that a schema refers to, by name. Each follows its own references.

    ``deleted``: also use softly deleted versions, to read what was written before. Raises ``RegistryError``
    (42201) if a version does not exist.
    """
    texts: dict[str, str] = {}
    stack = [(reference, False) for reference in reversed(list(references))]
    seen: set[Reference] = set()
    edges = characters = 0
    while stack:
        reference, is_resolved = stack.pop()
        version = state.version(reference.subject, reference.version)
        if version is None or (version.deleted and not deleted):
            wanted = f"name='{reference.name}', subject='{reference.subject}', version={reference.version}"
            raise errors.invalid_schema(f"no schema is registered for the reference {wanted}")
        if is_resolved:
            texts[reference.name] = version.content.text
            continue
        if reference in seen:
            continue
        seen.add(reference)
        edges += len(version.content.references)
        characters += len(version.content.text)
        if len(seen) > _MAX_REFERENCES or edges > _MAX_EDGES or characters > _MAX_CHARACTERS:
            raise errors.invalid_schema(
                f"it refers to too much: more than {_MAX_REFERENCES} schemas, {_MAX_EDGES} references between"
                f" them, or {_MAX_CHARACTERS} characters"
            )
        stack.append((reference, True))
        stack += [(inner, False) for inner in reversed(version.content.references)]
    return texts


def parse_content(state: Subjects, content: Content) -> Parsed:
    """Parse a schema as leniently as readers do. Raises ``RegistryError`` (42201)."""
    if not content.text.strip():
        raise errors.invalid_schema("Empty schema")
    texts = resolve_references(state, content.references)
    try:
        return parse(content.type, content.text, texts)
    except InvalidSchemaError as error:
        message = f"Invalid schema of type {content.type}, details: {error}"
        raise errors.invalid_schema(message) from None


def canonical(state: Subjects, content: Content, *, normalize: bool) -> Content:
    """Return the content as it is stored and compared. Raises ``RegistryError`` (42201)."""
    schema = parse_content(state, content)
    return content._replace(text=schema.normalized if normalize else schema.canonical)


def ids_of(state: Subjects, content: Content) -> Iterator[int]:
    """Return the ids of a canonical content, lowest first. A schema of earlier releases may have several."""
    for schema_id in state.candidate_ids(content):
        other = state.content(schema_id)
        if other is not None and (other == content or _is_same(state, other, content)):
            yield schema_id


def find_version(state: Subjects, subject: str, content: Content, *, deleted: bool = False) -> Version | None:
    """Return the newest version of a subject with a canonical content, by its lowest id there."""
    versions = {version.id: version for version in state.versions(subject, deleted=deleted)}
    return next((versions[id_] for id_ in ids_of(state, content) if id_ in versions), None)


def _is_same(state: Subjects, stored: Content, content: Content) -> bool:
    if stored._replace(text="") != content._replace(text=""):
        return False
    try:
        texts = resolve_references(state, stored.references, deleted=True)
        left, right = Parsed(stored.text, texts), Parsed(content.text, texts)
        return canonical_digest(left) == canonical_digest(right)
    except (RegistryError, InvalidSchemaError):  # another registry may store what is not a schema for us
        return False
