"""What a registry may do with a schema: look it up, check it, register it, delete it.

Pure: a state and a request make an answer and the events that make it true, or a ``RegistryError``. Who
calls sees to it that the state is up to date and that nobody else writes meanwhile.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from tieline.registry import errors
from tieline.registry.compatibility import incompatibilities
from tieline.registry.errors import RegistryError
from tieline.registry.formats import InvalidSchema, Parsed, parse
from tieline.registry.records import (
    MAX_ID,
    ConfigSet,
    Content,
    Event,
    IdsUsed,
    ModeSet,
    Reference,
    SchemaGone,
    SchemaStored,
    SubjectDeleted,
)
from tieline.registry.subjects import Subjects, Version

_MAX_REFERENCES = 1000  # all in all, through however many schemas
_IMPORTING = ("IMPORT", "FORWARD")


class Decision(NamedTuple):
    """What to answer, once these events are written (none: nothing is to be written)."""

    answer: Any
    events: Sequence[Event] = ()


class Request(NamedTuple):
    """A schema as a client sends it; ``id`` and ``version`` only where it imports one."""

    content: Content
    id: int | None = None
    version: int | None = None


def resolve(state: Subjects, references: Iterable[Reference], *, deleted: bool = False) -> dict[str, str]:
    """Name → text of all that a schema refers to, in the order in which they need each other.

    ``deleted``: also what was deleted softly, to read what was written before. Raises ``RegistryError``
    (42201) where one leads nowhere.
    """
    texts: dict[str, str] = {}
    open_ = [(reference, False) for reference in reversed(list(references))]
    seen: set[Reference] = set()
    while open_:
        reference, resolved = open_.pop()
        version = state.version(reference.subject, reference.version)
        if version is None or (version.deleted and not deleted):
            told = f"name='{reference.name}', subject='{reference.subject}', version={reference.version}"
            raise errors.invalid_schema(f"no schema is registered for the reference {told}")
        if resolved:
            texts[reference.name] = version.content.text
            continue
        if reference in seen:
            continue
        seen.add(reference)
        if len(seen) > _MAX_REFERENCES:
            raise errors.invalid_schema(f"more than {_MAX_REFERENCES} references")
        open_.append((reference, True))
        open_ += [(inner, False) for inner in reversed(version.content.references)]
    return texts


def parsed(state: Subjects, content: Content) -> Parsed:
    """The schema, checked. Raises ``RegistryError`` (42201)."""
    if not content.text.strip():
        raise errors.invalid_schema("Empty schema")
    texts = resolve(state, content.references)
    try:
        return _parse(content.type, content.text, tuple(texts.items()))
    except InvalidSchema as error:
        message = f"Invalid schema of type {content.type}, details: {error}"
        raise errors.invalid_schema(message) from None


def canonical(state: Subjects, content: Content, *, normalize: bool) -> Content:
    """The content as it is stored and compared. Raises ``RegistryError`` (42201)."""
    found = parsed(state, content)
    return content._replace(text=found.normalized if normalize else found.canonical)


def lookup(state: Subjects, subject: str, content: Content, *, deleted: bool = False) -> Version | None:
    """The newest version of a subject with this (canonical) content."""
    schema_id = state.find(content)
    versions = state.versions(subject, deleted=deleted)
    for version in reversed(versions):
        if version.id == schema_id or version.content == content:
            return version
    if content.type != "AVRO":  # of Avro, equality is that of the JSON, which the state knows without parsing
        for version in reversed(versions):
            if version.content.type == content.type and _equal(state, version.content, content):
                return version
    return None


def messages(
    state: Subjects, subject: str, content: Content, earlier: Sequence[Version], level: str | None = None
) -> list[str]:
    """Why this content may not follow the earlier versions (oldest first); empty: it may.

    ``level``: another than that of the subject. Raises ``RegistryError`` (42201).
    """
    level = level or state.level(subject)
    if level == "NONE" or not earlier:
        return []
    foreign = {version.content.type for version in earlier} - {content.type}
    if foreign:
        return [f"the subject's earlier schemas are {', '.join(sorted(foreign))}, the new one {content.type}"]
    if not level.endswith("_TRANSITIVE"):
        earlier = earlier[-1:]  # the others need not even be parsed
    new = parsed(state, content)
    return incompatibilities(level, new, [parsed(state, v.content) for v in earlier])


def register(state: Subjects, subject: str, asked: Request, *, normalize: bool = False) -> Decision:
    """Answers the ``Version``. The same content again is the same version, elsewhere the same id."""
    content = canonical(state, asked.content, normalize=normalize or state.normalizes(subject))
    known = lookup(state, subject, content)
    if known is not None and asked.id in (None, known.id) and asked.version in (None, known.number):
        return Decision(known)
    mode = state.mode(subject)
    _check_mode(subject, mode, asked)
    if mode not in _IMPORTING:
        told = messages(state, subject, content, state.versions(subject))
        if told:
            raise errors.incompatible(subject, told)
    there = state.versions(subject, deleted=True)
    number = _number(state, subject, mode, asked, content)
    schema_id = _id(state, asked, content)
    replaced = [v for v in there if v.deleted and v.id == schema_id and v.number < number]
    new = SchemaStored(subject, number, schema_id, content)
    return Decision(Version(*new), [*(SchemaGone(subject, v.number) for v in replaced), new])


def delete_version(state: Subjects, subject: str, number: int, *, permanent: bool) -> Decision:
    """Answers the version's number. Softly first, then for good."""
    version = state.version(subject, number)
    if version is None:
        raise (
            errors.version_not_found(number)
            if state.has(subject, deleted=True)
            else (errors.subject_not_found(subject))
        )
    if version.deleted and not permanent:
        raise errors.version_soft_deleted(subject, number)
    _check_writable(state, subject)
    _check_unreferenced(state, version)
    if not permanent:
        return Decision(number, [SchemaStored(*version._replace(deleted=True))])
    if not version.deleted:
        raise errors.version_not_soft_deleted(subject, number)
    last = len(state.versions(subject, deleted=True)) == 1
    scope = _scope_gone(state, subject) if last else []
    return Decision(number, [*_ids_used(state, [version]), SchemaGone(subject, number), *scope])


def delete_subject(state: Subjects, subject: str, *, permanent: bool) -> Decision:
    """Answers the numbers of the versions that were deleted."""
    if not state.has(subject, deleted=True):
        raise errors.subject_not_found(subject)
    if not permanent and not state.has(subject):
        raise errors.subject_soft_deleted(subject)
    _check_writable(state, subject)
    versions = state.versions(subject, deleted=permanent)
    for version in versions:
        _check_unreferenced(state, version)
    numbers = [version.number for version in versions]
    if not permanent:
        return Decision(numbers, [SubjectDeleted(subject, numbers[-1])])
    if any(not version.deleted for version in versions):
        raise errors.subject_not_soft_deleted(subject)
    gone = [SchemaGone(subject, number) for number in numbers]
    return Decision(numbers, [*_ids_used(state, versions), *gone, *_scope_gone(state, subject)])


@functools.lru_cache(maxsize=128)
def _parse(kind: str, text: str, references: tuple[tuple[str, str], ...]) -> Parsed:
    texts: Mapping[str, str] = dict(references)
    return parse(kind, text, texts)


def _equal(state: Subjects, one: Content, other: Content) -> bool:
    try:
        return canonical(state, one, normalize=False) == other
    except RegistryError:  # what another registry stored need not be a schema for us
        return False


def _check_mode(subject: str, mode: str, asked: Request) -> None:
    if mode in ("READONLY", "READONLY_OVERRIDE"):
        raise errors.not_permitted(f"Subject {subject} is in read-only mode")
    if asked.id is not None and mode not in _IMPORTING:
        raise errors.not_permitted(f"Subject {subject} is not in import mode")
    if asked.id is None and mode != "READWRITE":
        raise errors.not_permitted(f"Subject {subject} is not in read-write mode")


def _check_writable(state: Subjects, subject: str) -> None:
    if state.mode(subject) in ("READONLY", "READONLY_OVERRIDE"):
        raise errors.not_permitted(f"Subject {subject} is in read-only mode")


def _check_unreferenced(state: Subjects, version: Version) -> None:
    users = state.referrers(version.subject, version.number)
    if users:
        raise errors.reference_exists(version.subject, version.number, users)


def _number(state: Subjects, subject: str, mode: str, asked: Request, content: Content) -> int:
    """The number of the new version. Numbers of versions that were deleted softly are not used again."""
    there = state.versions(subject, deleted=True)
    following = there[-1].number + 1 if there else 1
    if asked.version is None:
        number = following
    elif mode in _IMPORTING:
        number = asked.version
        taken = state.version(subject, number)
        if taken is not None and taken.content != content:
            message = f"Version {number} of subject {subject} has another schema already"
            raise errors.not_permitted(message)
    elif asked.version == following:
        number = following
    else:
        raise errors.invalid_schema(f"Version is not one more than previous version: {following} is next")
    if number > MAX_ID:
        raise errors.store_failed(f"subject {subject} has no version number left")
    return number


def _id(state: Subjects, asked: Request, content: Content) -> int:
    known = state.find(content)
    if asked.id is None:
        if known is not None:
            return known
        if state.max_id >= MAX_ID:
            raise errors.store_failed("no schema id is left")
        return state.max_id + 1
    there = state.content(asked.id)
    if there is not None and there != content and asked.id != known:
        raise errors.not_permitted(f"Overwrite new schema with id {asked.id} is not permitted.")
    return asked.id


def _ids_used(state: Subjects, versions: Sequence[Version]) -> list[Event]:
    """The highest id stays used, also when compaction has taken away all that bore it."""
    return [IdsUsed(state.max_id)] if any(v.id == state.max_id for v in versions) else []


def _scope_gone(state: Subjects, subject: str) -> list[Event]:
    """With its last version, a subject's own configuration and mode go."""
    gone: list[Event] = []
    if subject in state.modes:
        gone.append(ModeSet(subject, None))
    if subject in state.configs:
        gone.append(ConfigSet(subject))
    return gone
