"""The calls that find schemas by their id or guid."""

from __future__ import annotations

from typing import Any

from tieline.registry.http.request import RegistryRequest
from tieline.registry.http.responses import text_json
from tieline.registry.model import errors
from tieline.registry.model.events import Content, content_json
from tieline.registry.model.state import Subjects, Version


def schema_by_id(request: RegistryRequest) -> Any:
    """``GET /schemas/ids/{id}``."""
    schema_id = _path_id(request)

    def find(state: Subjects) -> Content:
        content = state.content(schema_id)
        if content is None:
            raise errors.schema_not_found(schema_id)
        return content

    answer = content_json(request.topic.ask(find))
    if request.flag("fetchMaxId"):
        answer["maxId"] = request.topic.peek(lambda state: state.max_id)
    return answer


def text_by_id(request: RegistryRequest) -> Any:
    """``GET /schemas/ids/{id}/schema``."""
    return text_json(schema_by_id(request)["schema"])


def subjects_by_id(request: RegistryRequest) -> Any:
    """``GET /schemas/ids/{id}/subjects``."""
    return [version.subject for version in _versions(request)]


def versions_by_id(request: RegistryRequest) -> Any:
    """``GET /schemas/ids/{id}/versions``."""
    return [{"subject": version.subject, "version": version.number} for version in _versions(request)]


def schema_by_guid(request: RegistryRequest) -> Any:
    """``GET /schemas/guids/{guid}``."""
    content = request.topic.content(_id_of_guid(request))
    return {} if content is None else content_json(content)


def ids_by_guid(request: RegistryRequest) -> Any:
    """``GET /schemas/guids/{guid}/ids``."""
    return [{"context": ".", "id": _id_of_guid(request)}]


def parse_id(text: str) -> int | None:
    """Return the id in a path, or ``None`` if it is not a number."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 10 else None


def _versions(request: RegistryRequest) -> list[Version]:
    """Return the versions with the id in the path, of all subjects or of ``?subject=``."""
    schema_id, subject = _path_id(request), request.query.get("subject")
    with_deleted = request.flag("deleted")

    def find(state: Subjects) -> list[Version]:
        versions = state.versions_of_id(schema_id)
        if not versions:
            raise errors.schema_not_found(schema_id)
        return [
            version
            for version in versions
            if (with_deleted or not version.deleted) and subject in (None, version.subject)
        ]

    return request.page(request.topic.ask(find))


def _id_of_guid(request: RegistryRequest) -> int:
    guid = request.path["guid"].lower()

    def find(state: Subjects) -> int:
        schema_id = state.find_guid(guid)
        if schema_id is None:
            raise errors.schema_not_found(guid)
        return schema_id

    return request.topic.ask(find)


def _path_id(request: RegistryRequest) -> int:
    schema_id = parse_id(request.path["id"])
    if schema_id is None:
        raise errors.schema_not_found(request.path["id"][:50])
    return schema_id
