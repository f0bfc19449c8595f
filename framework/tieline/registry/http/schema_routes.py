"""The calls of Confluent's interface that ask for schemas by their ids."""

from __future__ import annotations

from typing import Any

from tieline.registry.http.request import RegistryRequest
from tieline.registry.http.responses import content_told, text_told
from tieline.registry.model import errors
from tieline.registry.model.events import Content
from tieline.registry.model.state import Subjects, Version


def schema_by_id(asked: RegistryRequest) -> Any:
    """``GET /schemas/ids/{id}``."""
    schema_id = _id(asked)

    def find(state: Subjects) -> Content:
        content = state.content(schema_id)
        if content is None:
            raise errors.schema_not_found(schema_id)
        return content

    content = asked.topic.ask(find)
    more = {"maxId": asked.topic.peek(lambda state: state.max_id)} if asked.flag("fetchMaxId") else {}
    return {**content_told(content), **more}


def text_by_id(asked: RegistryRequest) -> Any:
    """``GET /schemas/ids/{id}/schema``."""
    return text_told(schema_by_id(asked)["schema"])


def places(asked: RegistryRequest) -> list[Version]:
    """Where the schema of an id is registered."""
    schema_id, only = _id(asked), asked.query.get("subject")

    def find(state: Subjects) -> list[Version]:
        found = state.places(schema_id)
        if not found:
            raise errors.schema_not_found(schema_id)
        return [v for v in found if (asked.flag("deleted") or not v.deleted) and only in (None, v.subject)]

    return asked.page(asked.topic.ask(find))


def versions_by_id(asked: RegistryRequest) -> Any:
    """``GET /schemas/ids/{id}/versions``."""
    return [{"subject": version.subject, "version": version.number} for version in places(asked)]


def guid(asked: RegistryRequest) -> int:
    """The id of a guid."""
    guid = asked.path["guid"].lower()

    def find(state: Subjects) -> int:
        found = state.find_guid(guid)
        if found is None:
            raise errors.schema_not_found(guid)
        return found

    return asked.topic.ask(find)


def subjects_by_id(asked: RegistryRequest) -> Any:
    """``GET /schemas/ids/{id}/subjects``."""
    return [version.subject for version in places(asked)]


def ids_by_guid(asked: RegistryRequest) -> Any:
    """``GET /schemas/guids/{guid}/ids``."""
    return [{"context": ".", "id": guid(asked)}]


def schema_by_guid(asked: RegistryRequest) -> Any:
    """``GET /schemas/guids/{guid}``."""
    content = asked.topic.content(guid(asked))
    return {} if content is None else content_told(content)


def as_id(text: str) -> int | None:
    """The id in a path; none where it is none."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 10 else None


def _id(asked: RegistryRequest) -> int:
    found = as_id(asked.path["id"])
    if found is None:
        raise errors.schema_not_found(asked.path["id"][:50])
    return found
