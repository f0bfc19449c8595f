"""The state to which the topic's events add up: subjects, versions, ids, references, configuration, modes.

Pure. Not safe for threads, except that a fork which is never changed may be shared. Schemas are not parsed
here, so 10,000 of them load in the time that it takes to read them.
"""

from __future__ import annotations

import functools
import hashlib
import json
import uuid
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from tieline.registry.model.events import (
    ConfigSet,
    Content,
    Event,
    IdsUsed,
    ModeSet,
    SchemaGone,
    SchemaStored,
    SubjectDeleted,
    SubjectsCleared,
)
from tieline.registry.model.forked_tables import Groups

DEFAULT_LEVEL = "BACKWARD"
"""The compatibility level if none is configured."""


class Version(NamedTuple):
    """One version of a subject."""

    subject: str
    number: int
    id: int
    content: Content
    deleted: bool


class ConflictError(ValueError):
    """An event that would give an id a second meaning. The state is unchanged."""


class Subjects:
    """The state. Events are applied in the order of the topic."""

    def __init__(self) -> None:
        self.max_id = 0
        self.configs: dict[str | None, Mapping[str, Any]] = {}
        self.modes: dict[str | None, str] = {}
        self._contents: dict[int, Content] = {}
        self._versions: Groups[str, int, Version] = Groups()
        self._versions_by_id: Groups[int, tuple[str, int], None] = Groups()
        self._referrers: Groups[tuple[str, int], tuple[str, int], None] = Groups()
        self._ids_by_outline: Groups[str, int, None] = Groups()

    def fork(self) -> Subjects:
        """Return a copy that does not change with this one."""
        other = Subjects()
        other.max_id = self.max_id
        other.configs, other.modes = dict(self.configs), dict(self.modes)
        other._contents = dict(self._contents)
        other._versions, other._versions_by_id = self._versions.fork(), self._versions_by_id.fork()
        other._referrers, other._ids_by_outline = self._referrers.fork(), self._ids_by_outline.fork()
        return other

    def apply(self, event: Event) -> None:
        """Change the state by an event. Raises ``ConflictError``."""
        if isinstance(event, SchemaStored):
            self._put(Version(*event))
        elif isinstance(event, SchemaGone):
            self._remove(event.subject, event.version)
        elif isinstance(event, SubjectDeleted):
            self._delete_softly(event.subject, event.version)
        elif isinstance(event, SubjectsCleared):
            self._remove_deleted(event.subject)
        elif isinstance(event, ConfigSet):
            _set_or_delete(self.configs, event.subject, event.fields or None)
        elif isinstance(event, ModeSet):
            _set_or_delete(self.modes, event.subject, event.mode)
        elif isinstance(event, IdsUsed):
            self.max_id = max(self.max_id, event.max_id)

    def content(self, schema_id: int) -> Content | None:
        """Return the schema of an id, even if all its versions were softly deleted. Safe for any thread."""
        return self._contents.get(schema_id)

    def versions_of_id(self, schema_id: int) -> list[Version]:
        """Return the versions that have an id, in order, with the softly deleted ones."""
        keys = sorted(self._versions_by_id.get(schema_id))
        return [self._versions.get(subject)[number] for subject, number in keys]

    def names(self) -> Iterator[str]:
        """Return all subjects in order, with those of which every version was softly deleted."""
        return iter(sorted(self._versions))

    def has(self, subject: str, *, deleted: bool = False) -> bool:
        """Return whether a subject has a version; with ``deleted`` a softly deleted one suffices."""
        versions = self._versions.get(subject).values()
        return any(deleted or not version.deleted for version in versions)

    def versions(self, subject: str, *, deleted: bool = False) -> list[Version]:
        """Return the versions of a subject, oldest first; with ``deleted`` also the softly deleted ones."""
        versions = sorted(self._versions.get(subject).values(), key=lambda version: version.number)
        return [version for version in versions if deleted or not version.deleted]

    def version(self, subject: str, number: int) -> Version | None:
        """Return one version, whether softly deleted or not."""
        return self._versions.get(subject).get(number)

    def referrers(self, subject: str, number: int) -> list[int]:
        """Return the ids of the schemas that refer to a version and are not deleted themselves."""
        users = [self._versions.get(name)[user] for name, user in self._referrers.get((subject, number))]
        return sorted({user.id for user in users if not user.deleted})

    def candidate_ids(self, content: Content) -> Iterator[int]:
        """Return the ids, in order, of all schemas that may be the same as this one: of its kind and name."""
        return iter(sorted(self._ids_by_outline.get(_outline(content))))

    def find_guid(self, guid: str) -> int | None:
        """Return the id of the schema with this guid."""
        return next((number for number, content in self._contents.items() if guid_of(content) == guid), None)

    def level(self, subject: str) -> str:
        """Return the compatibility level that applies to a subject."""
        for scope in (subject, None):
            level = self.configs.get(scope, {}).get("compatibilityLevel")
            if level is not None:
                return str(level)
        return DEFAULT_LEVEL

    def normalizes(self, subject: str) -> bool:
        """Return whether new schemas of a subject are normalized without a request for it."""
        settings = [self.configs.get(scope, {}).get("normalize") for scope in (subject, None)]
        return next((value is True for value in settings if value is not None), False)

    def mode(self, subject: str | None) -> str:
        """Return the mode that applies to a subject, or (``None``) to those without one of their own."""
        global_mode = self.modes.get(None, "READWRITE")
        return global_mode if global_mode == "READONLY_OVERRIDE" else self.modes.get(subject, global_mode)

    def as_dict(self) -> dict[str, Any]:
        """Return the whole state as plain data, to compare two states."""
        return {
            "max_id": self.max_id,
            "configs": dict(self.configs),
            "modes": dict(self.modes),
            "versions": {name: self.versions(name, deleted=True) for name in self.names()},
            "contents": dict(self._contents),
            "referrers": {key: self.referrers(*key) for key in self._referrers if self.referrers(*key)},
        }

    def _delete_softly(self, subject: str, last: int) -> None:
        for version in self.versions(subject):
            if version.number <= last:
                self._put(version._replace(deleted=True))

    def _remove_deleted(self, subject: str | None) -> None:
        for name in list(self._versions) if subject is None else [subject]:
            for version in self.versions(name, deleted=True):
                if version.deleted:
                    self._remove(name, version.number)

    def _put(self, version: Version) -> None:
        key = version.subject, version.number
        others = self._versions_by_id.get(version.id).keys() - {key}
        if others and not _is_same(self._contents[version.id], version.content):
            raise ConflictError(f"id {version.id} already has another schema")
        self._remove(*key)
        self._versions.put(version.subject, version.number, version)
        if version.id not in self._contents:
            self._contents[version.id] = version.content
            self._ids_by_outline.put(_outline(version.content), version.id, None)
        self._versions_by_id.put(version.id, key, None)
        for reference in version.content.references:
            self._referrers.put((reference.subject, reference.version), key, None)
        self.max_id = max(self.max_id, version.id)

    def _remove(self, subject: str, number: int) -> None:
        version = self.version(subject, number)
        if version is None:
            return
        key = subject, number
        self._versions.remove(subject, number)
        self._versions_by_id.remove(version.id, key)
        if not self._versions_by_id.get(version.id):
            self._ids_by_outline.remove(_outline(self._contents.pop(version.id)), version.id)
        for reference in version.content.references:
            self._referrers.remove((reference.subject, reference.version), key)


@functools.lru_cache(maxsize=50_000)
def guid_of(content: Content) -> str | None:
    """Return Confluent's global id of a schema, which is the same in every registry.

    It is ``None`` for a schema with metadata or rules.
    """
    if content.metadata or content.rules:
        return None
    digest = hashlib.md5(content.text.encode("utf-8", "surrogatepass"), usedforsecurity=False)
    for name, subject, version in content.references:
        digest.update(name.encode("utf-8", "surrogatepass") + subject.encode("utf-8", "surrogatepass"))
        digest.update(version.to_bytes(4, "big"))
    return str(uuid.UUID(bytes=digest.digest()))


def _is_same(left: Content, right: Content) -> bool:
    return left == right or _without_white_space(left) == _without_white_space(right)


def _without_white_space(content: Content) -> Content:
    if content.type == "PROTOBUF":
        return content
    try:
        text = json.dumps(json.loads(content.text), separators=(",", ":"))
    except (ValueError, RecursionError):
        return content
    return content._replace(text=text)


def _outline(content: Content) -> str:
    """Return kind and short name of a schema.

    It is cheap, and equal for all texts of one schema; different schemas may have the same outline.
    """
    if content.type != "AVRO":
        return content.type
    try:
        part = json.loads(content.text)
    except (ValueError, RecursionError):
        return ""
    while isinstance(part, dict) and isinstance(part.get("type"), (dict, list)):
        part = part["type"]
    if isinstance(part, list):
        return "union"
    if isinstance(part, dict):
        kind, name = part.get("type"), part.get("name")
        if kind in ("record", "error", "enum", "fixed") and isinstance(name, str):
            return f"{kind} {name.rpartition('.')[2]}"
        part = kind
    return part.rpartition(".")[2] if isinstance(part, str) else ""


def _set_or_delete(values: dict[Any, Any], subject: Any, value: Any) -> None:
    if value is None:
        values.pop(subject, None)
    else:
        values[subject] = value
