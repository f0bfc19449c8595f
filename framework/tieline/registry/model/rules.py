"""What a registry may do with a schema: check it, register it, delete it.

Pure: a state and a request give an answer with the events that make it true, or a ``RegistryError``. The
caller ensures that the state is up to date and that no other registry writes at the same time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from tieline.registry.model import errors
from tieline.registry.model.avro_schema import InvalidSchemaError, Parsed, parse
from tieline.registry.model.compatibility import incompatibilities
from tieline.registry.model.errors import RegistryError
from tieline.registry.model.events import (
    MAX_ID,
    ConfigSet,
    Content,
    Event,
    IdsUsed,
    ModeSet,
    SchemaGone,
    SchemaStored,
    SubjectDeleted,
)
from tieline.registry.model.schema_lookup import (
    canonical,
    find_version,
    ids_of,
    parse_content,
    resolve_references,
)
from tieline.registry.model.state import Subjects, Version

_IMPORTING = ("IMPORT", "FORWARD")
_READ_ONLY = ("READONLY", "READONLY_OVERRIDE")


class Decision(NamedTuple):
    """An answer, and the events to write before it is given; without events nothing changes."""

    answer: Any
    events: Sequence[Event] = ()


class SchemaRequest(NamedTuple):
    """A schema as a client sends it; ``id`` and ``version`` only if it imports one."""

    content: Content
    id: int | None = None
    version: int | None = None


def check_readable(state: Subjects, subject: str, sent: Content) -> None:
    """Check that clients on the JVM can parse a new schema. Raises ``RegistryError`` (42201).

    A schema that is registered already passes, and so do faults that the subject's versions already have.
    """
    problems: Sequence[str] = parse_content(state, sent).problems
    if not problems or next(ids_of(state, canonical(state, sent, normalize=False)), None) is not None:
        return
    for version in state.versions(subject, deleted=True):
        known = _problems(state, version.content)
        problems = [problem for problem in problems if problem not in known]
    if problems:
        rest = f"; and {len(problems) - 5} more" if len(problems) > 5 else ""
        details = f"clients on the JVM cannot parse it: {'; '.join(problems[:5])}{rest}"
        raise errors.invalid_schema(f"Invalid schema of type {sent.type}, details: {details}")


def compatibility_messages(
    state: Subjects, subject: str, content: Content, earlier: Sequence[Version], level: str | None = None
) -> list[str]:
    """Return why a content may not follow earlier versions (oldest first); empty if it may.

    ``level``: by default the subject's. Raises ``RegistryError`` (42201).
    """
    level = level or state.level(subject)
    if level == "NONE" or not earlier:
        return []
    other_types = {version.content.type for version in earlier} - {content.type}
    if other_types:
        types = ", ".join(sorted(other_types))
        return [f"the subject's earlier schemas are {types}, the new one {content.type}"]
    if not level.endswith("_TRANSITIVE"):
        earlier = earlier[-1:]  # the others need not even be parsed
    new = parse_content(state, content)
    parsed = [Parsed(v.content.text, resolve_references(state, v.content.references)) for v in earlier]
    try:
        return incompatibilities(level, new, parsed)
    except InvalidSchemaError as error:
        return [f"an earlier version of the subject cannot be read: {error}"]


def register(state: Subjects, subject: str, request: SchemaRequest, *, normalize: bool = False) -> Decision:
    """Register a schema; the answer is its ``Version``. Raises ``RegistryError``.

    The same content again is the same version, and has the same id in other subjects.
    """
    content = canonical(state, request.content, normalize=normalize or state.normalizes(subject))
    known = find_version(state, subject, content)
    if known is not None and request.id in (None, known.id) and request.version in (None, known.number):
        return Decision(known)
    mode = state.mode(subject)
    _check_mode(subject, mode, request)
    if mode not in _IMPORTING:
        check_readable(state, subject, request.content)
        messages = compatibility_messages(state, subject, request.content, state.versions(subject))
        if messages:
            raise errors.incompatible(subject, messages)
    versions = state.versions(subject, deleted=True)
    number = _choose_number(state, subject, mode, request, content)
    schema_id = _choose_id(state, request, content)
    replaced = [v for v in versions if v.deleted and v.id == schema_id and v.number < number]
    # An id has one text, so the one that it has already is written again.
    new = SchemaStored(subject, number, schema_id, state.content(schema_id) or content)
    return Decision(Version(*new), [*(SchemaGone(subject, v.number) for v in replaced), new])


def delete_version(state: Subjects, subject: str, number: int, *, permanent: bool) -> Decision:
    """Delete a version, first softly, then permanently; the answer is its number.

    Raises ``RegistryError``.
    """
    version = state.version(subject, number)
    if version is None:
        exists = state.has(subject, deleted=True)
        raise errors.version_not_found(number) if exists else errors.subject_not_found(subject)
    if version.deleted and not permanent:
        raise errors.version_soft_deleted(subject, number)
    check_writable(state, subject)
    _check_unreferenced(state, version)
    if not permanent:
        return Decision(number, [SchemaStored(*version._replace(deleted=True))])
    if not version.deleted:
        raise errors.version_not_soft_deleted(subject, number)
    is_last = len(state.versions(subject, deleted=True)) == 1
    settings = _delete_settings(state, subject) if is_last else []
    return Decision(number, [*_keep_ids_used(state, [version]), SchemaGone(subject, number), *settings])


def delete_subject(state: Subjects, subject: str, *, permanent: bool) -> Decision:
    """Delete all versions of a subject; the answer is their numbers. Raises ``RegistryError``."""
    if not state.has(subject, deleted=True):
        raise errors.subject_not_found(subject)
    if not permanent and not state.has(subject):
        raise errors.subject_soft_deleted(subject)
    check_writable(state, subject)
    versions = state.versions(subject, deleted=permanent)
    for version in versions:
        _check_unreferenced(state, version)
    numbers = [version.number for version in versions]
    if not permanent:
        return Decision(numbers, [SubjectDeleted(subject, numbers[-1])])
    if any(not version.deleted for version in versions):
        raise errors.subject_not_soft_deleted(subject)
    gone = [SchemaGone(subject, number) for number in numbers]
    settings = _delete_settings(state, subject)
    return Decision(numbers, [*_keep_ids_used(state, versions), *gone, *settings])


def check_writable(state: Subjects, subject: str | None) -> None:
    """Check that the mode of a subject, or of all (``None``), permits a change. Raises ``RegistryError``."""
    if state.mode(subject) in _READ_ONLY:
        scope = "The registry" if subject is None else f"Subject {subject}"
        raise errors.not_permitted(f"{scope} is in read-only mode")


def _problems(state: Subjects, content: Content) -> frozenset[str]:
    try:
        texts = resolve_references(state, content.references, deleted=True)
        return frozenset(parse(content.type, content.text, texts).problems)
    except (RegistryError, InvalidSchemaError):
        return frozenset()


def _check_mode(subject: str, mode: str, request: SchemaRequest) -> None:
    if mode in _READ_ONLY:
        raise errors.not_permitted(f"Subject {subject} is in read-only mode")
    if request.id is not None and mode not in _IMPORTING:
        raise errors.not_permitted(f"Subject {subject} is not in import mode")
    if request.id is None and mode != "READWRITE":
        raise errors.not_permitted(f"Subject {subject} is not in read-write mode")


def _check_unreferenced(state: Subjects, version: Version) -> None:
    users = state.referrers(version.subject, version.number)
    if users:
        raise errors.reference_exists(version.subject, version.number, users)


def _choose_number(state: Subjects, subject: str, mode: str, request: SchemaRequest, content: Content) -> int:
    """Return the number of the new version. Numbers of softly deleted versions are not reused."""
    versions = state.versions(subject, deleted=True)
    following = versions[-1].number + 1 if versions else 1
    if request.version is None:
        number = following
    elif mode in _IMPORTING:
        number = request.version
        existing = state.version(subject, number)
        if existing is not None and existing.id not in ids_of(state, content):
            message = f"Version {number} of subject {subject} already has another schema"
            raise errors.not_permitted(message)
    elif request.version == following:
        number = following
    else:
        raise errors.invalid_schema(f"Version is not one more than previous version: {following} is next")
    if number > MAX_ID:
        raise errors.store_failed(f"subject {subject} has no version number left")
    return number


def _choose_id(state: Subjects, request: SchemaRequest, content: Content) -> int:
    known = next(ids_of(state, content), None)
    if request.id is None:
        if known is not None:
            return known
        if state.max_id >= MAX_ID:
            raise errors.store_failed("no schema id is left")
        return state.max_id + 1
    is_taken = state.content(request.id) is not None
    if is_taken and request.id not in ids_of(state, content):
        raise errors.not_permitted(f"Overwrite new schema with id {request.id} is not permitted.")
    return request.id


def _keep_ids_used(state: Subjects, versions: Sequence[Version]) -> list[Event]:
    """Return the event that keeps the highest id used, even when compaction has removed all its records."""
    return [IdsUsed(state.max_id)] if any(v.id == state.max_id for v in versions) else []


def _delete_settings(state: Subjects, subject: str) -> list[Event]:
    """Return the events that delete a subject's configuration and mode, together with its last version."""
    events: list[Event] = []
    if subject in state.modes:
        events.append(ModeSet(subject, None))
    if subject in state.configs:
        events.append(ConfigSet(subject))
    return events
