"""One request to the registry: its path, parameters and body, each validated when it is read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from starlette.datastructures import QueryParams

from tieline.registry.http.access import WRITE, Access
from tieline.registry.model import errors, rules, schema_lookup
from tieline.registry.model.errors import RegistryError
from tieline.registry.model.events import MAX_ID, Content, Reference, canonical_json
from tieline.registry.model.state import Subjects
from tieline.registry.schema_topic import SchemaTopic

_MAX_DEPTH = 50  # of metadata and rules


class RegistryRequest(NamedTuple):
    """A request. ``access`` is what its route needs, and so the most that it may do."""

    topic: SchemaTopic
    path: Mapping[str, str]
    query: QueryParams
    body: Mapping[str, Any]
    access: Access

    @property
    def subject(self) -> str:
        """The subject in the path. Raises ``RegistryError`` (42208)."""
        subject = self.path["subject"]
        if not subject.strip() or any(ord(character) < 32 for character in subject):
            raise errors.invalid_subject(subject)
        return subject

    @property
    def subject_or_none(self) -> str | None:
        """The subject in the path, or ``None`` if the request is about all subjects."""
        return self.subject if "subject" in self.path else None

    def flag(self, name: str) -> bool:
        """Return whether a query parameter is ``true``."""
        return self.query.get(name, "").lower() == "true"

    def number(self, name: str, default: int) -> int:
        """Return a query parameter that is an integer. Raises ``RegistryError`` (422)."""
        text = self.query.get(name, "")
        try:
            return int(text[:20]) if text else default
        except ValueError:
            raise errors.unprocessable(f"{name}: {text[:50]!r} is not a number") from None

    def page(self, items: list[Any]) -> list[Any]:
        """Return the part of a list that ``offset`` and ``limit`` select."""
        offset, limit = max(0, self.number("offset", 0)), self.number("limit", -1)
        return items[offset:] if limit < 0 else items[offset : offset + limit]

    def schema(self, state: Subjects) -> rules.SchemaRequest:
        """Return the schema in the body as it was sent. Raises ``RegistryError``."""
        text, kind = self.body.get("schema"), self.body.get("schemaType") or "AVRO"
        if not isinstance(text, str) or not text.strip():
            raise errors.invalid_schema("Empty schema: the body needs a string 'schema'")
        references = self.body.get("references") or []
        if not isinstance(kind, str) or not isinstance(references, list):
            raise errors.invalid_schema("schemaType must be a string, and references a list")
        content = Content(
            kind.upper(),
            text,
            tuple(_parse_reference(state, each) for each in references),
            canonical_json(_parse_map(self.body.get("metadata"), "metadata")),
            canonical_json(_parse_map(self.body.get("ruleSet"), "ruleSet")),
        )
        schema_id = _parse_integer(self.body.get("id"), "id")
        version = _parse_integer(self.body.get("version"), "version")
        return rules.SchemaRequest(content, schema_id, version)

    def content(self, state: Subjects) -> Content:
        """Return the schema in the body as it is stored and compared. Raises ``RegistryError``."""
        normalize = self.flag("normalize") or state.normalizes(self.subject)
        return schema_lookup.canonical(state, self.schema(state).content, normalize=normalize)

    def change(self, rule: Callable[[Subjects], rules.Decision]) -> Any:
        """Make a change and return its answer. Raises ``RegistryError``.

        A route that only reads cannot make one, whatever the role of the user.
        """
        if self.access is not WRITE:
            raise RegistryError(403, 403, "This path cannot change anything")
        return self.topic.change(rule).answer


def _parse_reference(state: Subjects, value: Any) -> Reference:
    fields = value if isinstance(value, dict) else {}
    name, subject, version = fields.get("name"), fields.get("subject"), fields.get("version")
    if not (isinstance(name, str) and name and isinstance(subject, str) and type(version) is int):
        raise errors.invalid_schema("a reference needs name, subject and version")
    if version == -1:
        versions = state.versions(subject)
        version = versions[-1].number if versions else 1
    return Reference(name, subject, version)


def _parse_map(value: Any, name: str) -> Mapping[str, Any] | None:
    if value is not None and not isinstance(value, dict):
        raise errors.unprocessable(f"{name} is not an object")
    if _is_too_deep(value):
        raise errors.unprocessable(f"{name} is nested deeper than {_MAX_DEPTH}")
    return value


def _is_too_deep(value: Any) -> bool:
    """Return whether another instance might fail to read the value from the topic."""
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


def _parse_integer(value: Any, name: str) -> int | None:
    if value is not None and (type(value) is not int or not -1 <= value <= MAX_ID):
        raise errors.unprocessable(f"{name} is not a number from -1 to {MAX_ID}")
    return value if value and value > 0 else None
