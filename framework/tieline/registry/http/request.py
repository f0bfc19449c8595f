"""What a request to the registry asks: its path, parameters and body, checked where they are read."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from starlette.datastructures import QueryParams

from tieline.registry.model import errors, rules
from tieline.registry.model.events import MAX_ID, Content, Reference, canonical_json
from tieline.registry.model.state import Subjects
from tieline.registry.schema_topic import SchemaTopic

_MAX_DEPTH = 50  # of metadata and rules


class Access(enum.Enum):
    """What a route needs."""

    READ = "read"
    WRITE = "write"


READ, WRITE = Access.READ, Access.WRITE


class RegistryRequest(NamedTuple):
    """One request. ``access``: what its route needs, so what it may do."""

    topic: SchemaTopic
    path: Mapping[str, str]
    query: QueryParams
    body: Mapping[str, Any]
    access: Access

    @property
    def subject(self) -> str:
        """The subject in the path."""
        subject = self.path["subject"]
        if not subject.strip() or any(ord(character) < 32 for character in subject):
            raise errors.invalid_subject(subject)
        return subject

    @property
    def maybe_subject(self) -> str | None:
        """None where the request is about all subjects."""
        return self.subject if "subject" in self.path else None

    def flag(self, name: str) -> bool:
        """A parameter that is ``true``."""
        return self.query.get(name, "").lower() == "true"

    def number(self, name: str, default: int) -> int:
        """A parameter that is a number."""
        text = self.query.get(name, "")
        try:
            return int(text[:20]) if text else default
        except ValueError:
            raise errors.unprocessable(f"{name}: {text[:50]!r} is no number") from None

    def page(self, found: list[Any]) -> list[Any]:
        """The part of a list that ``offset`` and ``limit`` ask for."""
        offset, limit = max(0, self.number("offset", 0)), self.number("limit", -1)
        return found[offset:] if limit < 0 else found[offset : offset + limit]

    def schema(self, state: Subjects) -> rules.Request:
        """The schema in the body, as it was sent."""
        text, kind = self.body.get("schema"), self.body.get("schemaType") or "AVRO"
        if not isinstance(text, str) or not text.strip():
            raise errors.invalid_schema("Empty schema: the body needs a text 'schema'")
        references = self.body.get("references") or []
        if not isinstance(kind, str) or not isinstance(references, list):
            raise errors.invalid_schema("schemaType is a text, and references are a list")
        content = Content(
            kind.upper(),
            text,
            tuple(_reference(state, each) for each in references),
            canonical_json(_map(self.body.get("metadata"), "metadata")),
            canonical_json(_map(self.body.get("ruleSet"), "ruleSet")),
        )
        schema_id, version = _whole(self.body.get("id"), "id"), _whole(self.body.get("version"), "version")
        return rules.Request(content, schema_id, version)

    def content(self, state: Subjects) -> Content:
        """The same as it is stored and compared."""
        normalize = self.flag("normalize") or state.normalizes(self.subject)
        return rules.canonical(state, self.schema(state).content, normalize=normalize)

    def answer_of(self, rule: Callable[[Subjects], rules.Decision]) -> Any:
        """Make a change; what is to be answered. A route that only reads cannot, whoever asks."""
        if self.access is not WRITE:
            raise errors.forbidden()
        return self.topic.change(rule).answer


def _reference(state: Subjects, value: Any) -> Reference:
    given = value if isinstance(value, dict) else {}
    name, subject, version = given.get("name"), given.get("subject"), given.get("version")
    if not (isinstance(name, str) and name and isinstance(subject, str) and type(version) is int):
        raise errors.invalid_schema("a reference needs name, subject and version")
    if version == -1:
        newest = state.versions(subject)
        version = newest[-1].number if newest else 1
    return Reference(name, subject, version)


def _map(value: Any, name: str) -> Mapping[str, Any] | None:
    if value is not None and not isinstance(value, dict):
        raise errors.unprocessable(f"{name} is no object")
    if _is_deep(value):
        raise errors.unprocessable(f"{name} is nested deeper than {_MAX_DEPTH}")
    return value


def _is_deep(value: Any) -> bool:
    """Whether it might be too deep for another instance to read from the topic."""
    level = [value]
    for _ in range(_MAX_DEPTH):
        level = [
            inner
            for each in level
            if isinstance(each, (dict, list))
            for inner in (each.values() if isinstance(each, dict) else each)
        ]
        if not level:
            return False
    return True


def _whole(value: Any, name: str) -> int | None:
    if value is not None and (type(value) is not int or not -1 <= value <= MAX_ID):
        raise errors.unprocessable(f"{name} is no number up to {MAX_ID}")
    return value if value and value > 0 else None
