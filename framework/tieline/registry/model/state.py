"""The state that the topic's events add up to: subjects, versions, ids, references, configuration, modes.

Pure, and not safe for threads by itself; a fork that nobody changes is. No schema is understood here: 10,000
of them are loaded in the time that it takes to read them.
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
"""The compatibility level where none is configured."""


class Version(NamedTuple):
    """One version of a subject."""

    subject: str
    number: int
    id: int
    content: Content
    deleted: bool


class Conflict(ValueError):
    """An event that would give an id a second meaning; the state is as it was."""


class Subjects:
    """Apply the events in the order of the topic; then ask."""

    def __init__(self) -> None:
        self.max_id = 0
        self.configs: dict[str | None, Mapping[str, Any]] = {}
        self.modes: dict[str | None, str] = {}
        self._contents: dict[int, Content] = {}
        self._versions: Groups[str, int, Version] = Groups()
        self._places: Groups[int, tuple[str, int], None] = Groups()
        self._referrers: Groups[tuple[str, int], tuple[str, int], None] = Groups()
        self._alike: Groups[str, int, None] = Groups()

    def fork(self) -> Subjects:
        """The same state, which does not change with this one."""
        other = Subjects()
        other.max_id = self.max_id
        other.configs, other.modes = dict(self.configs), dict(self.modes)
        other._contents = dict(self._contents)
        other._versions, other._places = self._versions.fork(), self._places.fork()
        other._referrers, other._alike = self._referrers.fork(), self._alike.fork()
        return other

    def apply(self, event: Event) -> None:
        """Raises ``Conflict``."""
        if isinstance(event, SchemaStored):
            self._put(Version(*event))
        elif isinstance(event, SchemaGone):
            self._remove(event.subject, event.version)
        elif isinstance(event, SubjectDeleted):
            for version in self.versions(event.subject):
                if version.number <= event.version:
                    self._put(version._replace(deleted=True))
        elif isinstance(event, SubjectsCleared):
            for name in list(self._versions) if event.subject is None else [event.subject]:
                for version in self.versions(name, deleted=True):
                    if version.deleted:
                        self._remove(name, version.number)
        elif isinstance(event, ConfigSet):
            _set(self.configs, event.subject, event.fields or None)
        elif isinstance(event, ModeSet):
            _set(self.modes, event.subject, event.mode)
        elif isinstance(event, IdsUsed):
            self.max_id = max(self.max_id, event.max_id)

    def content(self, schema_id: int) -> Content | None:
        """The schema of an id, also where all its versions were deleted softly. Safe for any thread."""
        return self._contents.get(schema_id)

    def versions_of_id(self, schema_id: int) -> list[Version]:
        """Where the schema of an id is registered, in order; deleted versions too."""
        places = sorted(self._places.get(schema_id))
        return [self._versions.get(subject)[number] for subject, number in places]

    def names(self) -> Iterator[str]:
        """All subjects in order, also where every version was deleted softly."""
        return iter(sorted(self._versions))

    def has(self, subject: str, *, deleted: bool = False) -> bool:
        """Whether the subject has a version."""
        found = self._versions.get(subject).values()
        return any(deleted or not version.deleted for version in found)

    def versions(self, subject: str, *, deleted: bool = False) -> list[Version]:
        """The versions of a subject, oldest first; with ``deleted`` those deleted softly too."""
        found = sorted(self._versions.get(subject).values(), key=lambda version: version.number)
        return [version for version in found if deleted or not version.deleted]

    def version(self, subject: str, number: int) -> Version | None:
        """One version, deleted softly or not."""
        return self._versions.get(subject).get(number)

    def referrers(self, subject: str, number: int) -> list[int]:
        """The ids of the schemas that refer to a version, and are not deleted themselves."""
        users = [self._versions.get(name)[at] for name, at in self._referrers.get((subject, number))]
        return sorted({user.id for user in users if not user.deleted})

    def alike(self, content: Content) -> Iterator[int]:
        """The ids of all schemas that may be the same as this one, in order: those with its kind and name."""
        return iter(sorted(self._alike.get(_outline(content))))

    def find_guid(self, guid: str) -> int | None:
        """The id of the schema with this guid."""
        return next((number for number, content in self._contents.items() if guid_of(content) == guid), None)

    def level(self, subject: str) -> str:
        """The compatibility level that holds for a subject."""
        for scope in (subject, None):
            level = self.configs.get(scope, {}).get("compatibilityLevel")
            if level is not None:
                return str(level)
        return DEFAULT_LEVEL

    def normalizes(self, subject: str) -> bool:
        """Whether new schemas of a subject are normalized without being asked to."""
        found = [self.configs.get(scope, {}).get("normalize") for scope in (subject, None)]
        return next((value is True for value in found if value is not None), False)

    def mode(self, subject: str | None) -> str:
        """The mode that holds for a subject, or (none) for those without one of their own."""
        overall = self.modes.get(None, "READWRITE")
        return overall if overall == "READONLY_OVERRIDE" else self.modes.get(subject, overall)

    def picture(self) -> dict[str, Any]:
        """All of it as plain data, to compare two states."""
        return {
            "max_id": self.max_id,
            "configs": dict(self.configs),
            "modes": dict(self.modes),
            "versions": {name: self.versions(name, deleted=True) for name in self.names()},
            "contents": dict(self._contents),
            "referrers": {at: self.referrers(*at) for at in self._referrers if self.referrers(*at)},
        }

    def _put(self, version: Version) -> None:
        place = version.subject, version.number
        others = self._places.get(version.id).keys() - {place}
        if others and not _same(self._contents[version.id], version.content):
            raise Conflict(f"id {version.id} has another schema already")
        self._remove(*place)
        self._versions.put(version.subject, version.number, version)
        if version.id not in self._contents:
            self._contents[version.id] = version.content
            self._alike.put(_outline(version.content), version.id, None)
        self._places.put(version.id, place, None)
        for reference in version.content.references:
            self._referrers.put((reference.subject, reference.version), place, None)
        self.max_id = max(self.max_id, version.id)

    def _remove(self, subject: str, number: int) -> None:
        version = self.version(subject, number)
        if version is None:
            return
        place = subject, number
        self._versions.remove(subject, number)
        self._places.remove(version.id, place)
        if not self._places.get(version.id):
            self._alike.remove(_outline(self._contents.pop(version.id)), version.id)
        for reference in version.content.references:
            self._referrers.remove((reference.subject, reference.version), place)


@functools.lru_cache(maxsize=50_000)
def guid_of(content: Content) -> str | None:
    """Confluent's global id of a schema, the same in every registry; none for one with metadata or rules."""
    if content.metadata or content.rules:
        return None
    digest = hashlib.md5(content.text.encode("utf-8", "surrogatepass"), usedforsecurity=False)
    for name, subject, version in content.references:
        digest.update(name.encode("utf-8", "surrogatepass") + subject.encode("utf-8", "surrogatepass"))
        digest.update(version.to_bytes(4, "big"))
    return str(uuid.UUID(bytes=digest.digest()))


def _same(one: Content, other: Content) -> bool:
    return one == other or _folded(one) == _folded(other)


def _folded(content: Content) -> Content:
    """Without the white space of JSON."""
    if content.type == "PROTOBUF":
        return content
    try:
        text = json.dumps(json.loads(content.text), separators=(",", ":"))
    except (ValueError, RecursionError):
        return content
    return content._replace(text=text)


def _outline(content: Content) -> str:
    """Kind and short name: equal for all texts of one schema, and cheap; not all that it is equal for are."""
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


def _set(values: dict[Any, Any], subject: Any, value: Any) -> None:
    if value is None:
        values.pop(subject, None)
    else:
        values[subject] = value
