"""What a registry may do with a schema: look it up, check it, register it, delete it.

Pure: a state and a request make an answer and the events that make it true, or a ``RegistryError``. Who
calls sees to it that the state is up to date and that nobody else writes meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from tieline.registry.model import errors
from tieline.registry.model.avro_schema import InvalidSchema, Parsed, canonical_digest, parse
from tieline.registry.model.compatibility import incompatibilities
from tieline.registry.model.errors import RegistryError
from tieline.registry.model.events import (
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
from tieline.registry.model.state import Subjects, Version

_MAX_REFERENCES = 1000  # all in all, through however many schemas
_MAX_EDGES = 20_000  # and from one to another
_MAX_CHARACTERS = 8_000_000  # of them all
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
    edges = characters = 0
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
        edges += len(version.content.references)
        characters += len(version.content.text)
        if len(seen) > _MAX_REFERENCES or edges > _MAX_EDGES or characters > _MAX_CHARACTERS:
            raise errors.invalid_schema(
                f"it refers to too much: more than {_MAX_REFERENCES} schemas, {_MAX_EDGES} references between"
                f" them, or {_MAX_CHARACTERS} characters"
            )
        open_.append((reference, True))
        open_ += [(inner, False) for inner in reversed(version.content.references)]
    return texts


def parsed(state: Subjects, content: Content) -> Parsed:
    """The schema, read as leniently as readers do. Raises ``RegistryError`` (42201)."""
    if not content.text.strip():
        raise errors.invalid_schema("Empty schema")
    texts = resolve(state, content.references)
    try:
        return parse(content.type, content.text, texts)
    except InvalidSchema as error:
        message = f"Invalid schema of type {content.type}, details: {error}"
        raise errors.invalid_schema(message) from None


def canonical(state: Subjects, content: Content, *, normalize: bool) -> Content:
    """The content as it is stored and compared. Raises ``RegistryError`` (42201)."""
    found = parsed(state, content)
    return content._replace(text=found.normalized if normalize else found.canonical)


def ids_of(state: Subjects, content: Content) -> Iterator[int]:
    """The ids of this (canonical) content, the first one first: of old, one schema may have several."""
    for schema_id in state.alike(content):
        other = state.content(schema_id)
        if other is not None and (other == content or _same(state, other, content)):
            yield schema_id


def lookup(state: Subjects, subject: str, content: Content, *, deleted: bool = False) -> Version | None:
    """The newest version of a subject with this (canonical) content, by the first id that it has there."""
    versions = state.versions(subject, deleted=deleted)
    there = {version.id: version for version in versions}
    return next((there[schema_id] for schema_id in ids_of(state, content) if schema_id in there), None)


def check_readable(state: Subjects, subject: str, sent: Content) -> None:
    """A new schema must be one that JVM clients can parse, but for what stands in the subject already.

    Raises ``RegistryError`` (42201).
    """
    wrong: Sequence[str] = parsed(state, sent).problems
    if not wrong or next(ids_of(state, canonical(state, sent, normalize=False)), None) is not None:
        return
    for version in state.versions(subject, deleted=True):
        known = _problems(state, version.content)
        wrong = [each for each in wrong if each not in known]
    if wrong:
        more = f"; and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        told = f"clients on the JVM cannot parse it: {'; '.join(wrong[:5])}{more}"
        raise errors.invalid_schema(f"Invalid schema of type {sent.type}, details: {told}")


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
    standing = [Parsed(v.content.text, resolve(state, v.content.references)) for v in earlier]
    try:
        return incompatibilities(level, new, standing)
    except InvalidSchema as error:
        return [f"an earlier version of the subject cannot be read: {error}"]


def register(state: Subjects, subject: str, asked: Request, *, normalize: bool = False) -> Decision:
    """Answers the ``Version``. The same content again is the same version, elsewhere the same id."""
    content = canonical(state, asked.content, normalize=normalize or state.normalizes(subject))
    known = lookup(state, subject, content)
    if known is not None and asked.id in (None, known.id) and asked.version in (None, known.number):
        return Decision(known)
    mode = state.mode(subject)
    _check_mode(subject, mode, asked)
    if mode not in _IMPORTING:
        check_readable(state, subject, asked.content)
        told = messages(state, subject, asked.content, state.versions(subject))
        if told:
            raise errors.incompatible(subject, told)
    there = state.versions(subject, deleted=True)
    number = _number(state, subject, mode, asked, content)
    schema_id = _id(state, asked, content)
    replaced = [v for v in there if v.deleted and v.id == schema_id and v.number < number]
    # What stands under this id is written as it stands: an id has one text.
    new = SchemaStored(subject, number, schema_id, state.content(schema_id) or content)
    return Decision(Version(*new), [*(SchemaGone(subject, v.number) for v in replaced), new])


def delete_version(state: Subjects, subject: str, number: int, *, permanent: bool) -> Decision:
    """Answers the version's number. Softly first, then for good."""
    version = state.version(subject, number)
    if version is None:
        is_there = state.has(subject, deleted=True)
        raise errors.version_not_found(number) if is_there else errors.subject_not_found(subject)
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


def _same(state: Subjects, standing: Content, content: Content) -> bool:
    if standing._replace(text="") != content._replace(text=""):
        return False
    try:
        texts = resolve(state, standing.references, deleted=True)
        one, other = Parsed(standing.text, texts), Parsed(content.text, texts)
        return canonical_digest(one) == canonical_digest(other)
    except (RegistryError, InvalidSchema):  # what another registry stored need not be a schema for us
        return False


def _problems(state: Subjects, content: Content) -> frozenset[str]:
    try:
        return frozenset(
            parse(content.type, content.text, resolve(state, content.references, deleted=True)).problems
        )
    except (RegistryError, InvalidSchema):
        return frozenset()


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
        if taken is not None and taken.id not in ids_of(state, content):
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
    known = next(ids_of(state, content), None)
    if asked.id is None:
        if known is not None:
            return known
        if state.max_id >= MAX_ID:
            raise errors.store_failed("no schema id is left")
        return state.max_id + 1
    there = state.content(asked.id)
    if there is not None and asked.id not in ids_of(state, content):
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
