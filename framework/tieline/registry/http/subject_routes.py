"""The calls about subjects, compatibility, configuration and mode."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

from tieline.registry.http.request import RegistryRequest
from tieline.registry.http.responses import guid_json, text_json, version_json
from tieline.registry.model import config_and_mode, errors, rules, schema_lookup
from tieline.registry.model.events import MAX_ID, Content, content_json
from tieline.registry.model.state import Subjects, Version

_MAX_LISTED_SCHEMAS = 10_000

Call = Callable[[RegistryRequest], Any]


# -- subjects


def list_schemas(request: RegistryRequest) -> Any:
    """``GET /schemas``."""
    prefix, deleted, latest_only = _prefix(request), request.flag("deleted"), request.flag("latestOnly")

    def find(state: Subjects) -> list[Version]:
        by_subject = [
            state.versions(name, deleted=deleted) for name in state.names() if name.startswith(prefix)
        ]
        return [
            version for versions in by_subject for version in (versions[-1:] if latest_only else versions)
        ]

    versions = request.page(request.topic.ask(find))
    return [version_json(version) for version in versions[:_MAX_LISTED_SCHEMAS]]


def list_subjects(request: RegistryRequest) -> Any:
    """``GET /subjects``."""
    prefix, deleted, deleted_only = _prefix(request), request.flag("deleted"), request.flag("deletedOnly")

    def find(state: Subjects) -> list[str]:
        names = [name for name in state.names() if name.startswith(prefix)]
        if deleted_only:
            return [name for name in names if not state.has(name)]
        return [name for name in names if state.has(name, deleted=deleted)]

    return request.page(request.topic.ask(find))


def _prefix(request: RegistryRequest) -> str:
    """Return the prefix without its context: all contexts (``:*:``) or the default one (``:.:``).

    Both mean the same here, since there is no other context.
    """
    return request.query.get("subjectPrefix", "").removeprefix(":*:").removeprefix(":.:")


def list_versions(request: RegistryRequest) -> Any:
    """``GET /subjects/{subject}/versions``."""
    subject, deleted_only = request.subject, request.flag("deletedOnly")
    deleted = deleted_only or request.flag("deleted")

    def find(state: Subjects) -> list[int]:
        versions = state.versions(subject, deleted=deleted)
        if not versions:
            raise errors.subject_not_found(subject)
        return [version.number for version in versions if version.deleted or not deleted_only]

    return request.page(request.topic.ask(find))


def get_version(request: RegistryRequest) -> Any:
    """``GET /subjects/{subject}/versions/{version}``."""
    return version_json(_version(request))


def text_of_version(request: RegistryRequest) -> Any:
    """``GET /subjects/{subject}/versions/{version}/schema``."""
    return text_json(_version(request).content.text)


def _version(request: RegistryRequest) -> Version:
    deleted = request.flag("deleted")
    return request.topic.ask(lambda state: _find_version(state, request, deleted=deleted))


def _find_version(state: Subjects, request: RegistryRequest, *, deleted: bool = False) -> Version:
    """Return the version in the path: a number, ``latest`` or ``-1``. The latest is never a deleted one."""
    subject, number = request.subject, request.path["version"]
    versions = state.versions(subject, deleted=deleted)
    if not versions:
        raise errors.subject_not_found(subject)
    if number in ("latest", "-1"):
        live = state.versions(subject)
        if not live:
            raise errors.version_not_found(-1)
        return live[-1]
    return _with_number(versions, number)


def _with_number(versions: list[Version], text: str) -> Version:
    number = _parse_version(text)
    for version in versions:
        if version.number == number:
            return version
    raise errors.version_not_found(number)


def _parse_version(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 11 and 0 < int(text) <= MAX_ID):
        raise errors.invalid_version(text[:100])
    return int(text)


def version_with_metadata(request: RegistryRequest) -> Any:
    """``GET /subjects/{subject}/metadata?key=…&value=…``: the latest version with all these properties."""
    subject, deleted = request.subject, request.flag("deleted")
    wanted = dict(zip(request.query.getlist("key"), request.query.getlist("value"), strict=False))

    def find(state: Subjects) -> Version:
        versions = state.versions(subject, deleted=deleted)
        if not versions:
            raise errors.subject_not_found(subject)
        matching = [version for version in versions if wanted.items() <= _properties(version.content).items()]
        if not matching:
            raise errors.schema_not_found()
        return matching[-1]

    return version_json(request.topic.ask(find))


def _properties(content: Content) -> dict[str, Any]:
    properties = json.loads(content.metadata or "{}").get("properties")
    return properties if isinstance(properties, dict) else {}


def referenced_by(request: RegistryRequest) -> Any:
    """``GET …/versions/{version}/referencedby``."""

    def find(state: Subjects) -> list[int]:
        version = _find_version(state, request)
        return state.referrers(version.subject, version.number)

    return request.topic.ask(find)


def register(request: RegistryRequest) -> Any:
    """``POST /subjects/{subject}/versions``."""
    normalize = request.flag("normalize")
    version: Version = request.change(
        lambda state: rules.register(state, request.subject, request.schema(state), normalize=normalize)
    )
    return {
        "id": version.id,
        "version": version.number,
        **guid_json(version.content),
        **content_json(version.content),
    }


def lookup(request: RegistryRequest) -> Any:
    """``POST /subjects/{subject}``."""
    subject, deleted = request.subject, request.flag("deleted")

    def find(state: Subjects) -> Version:
        if not state.has(subject, deleted=deleted):
            raise errors.subject_not_found(subject)
        version = schema_lookup.find_version(state, subject, request.content(state), deleted=deleted)
        if version is None:
            raise errors.schema_not_found()
        return version

    return version_json(request.topic.ask(find))


def delete_subject(request: RegistryRequest) -> Any:
    """``DELETE /subjects/{subject}``."""
    permanent = request.flag("permanent")
    return request.change(lambda state: rules.delete_subject(state, request.subject, permanent=permanent))


def delete_version(request: RegistryRequest) -> Any:
    """``DELETE /subjects/{subject}/versions/{version}``."""
    permanent = request.flag("permanent")

    def delete(state: Subjects) -> rules.Decision:
        number = _find_version(state, request, deleted=True).number
        return rules.delete_version(state, request.subject, number, permanent=permanent)

    return request.change(delete)


def check_compatibility(request: RegistryRequest) -> Any:
    """``POST /compatibility/subjects/{subject}/versions[/{version}]``.

    As in Confluent's registry, a subject without versions is compatible with every schema. A text that is not
    a schema is rejected; if the client asks for messages, the reason is one of them.
    """
    is_verbose = request.flag("verbose")

    def find(state: Subjects) -> list[str]:
        earlier = _versions_to_check(state, request)
        try:
            content = request.schema(state).content
            rules.check_readable(state, request.subject, content)
        except errors.RegistryError as error:
            if is_verbose and error.code == errors.INVALID_SCHEMA:
                return [str(error)]
            raise
        return rules.compatibility_messages(state, request.subject, content, earlier)

    request.topic.catch_up(time.monotonic())
    messages = request.topic.ask(find)
    answer: dict[str, Any] = {"is_compatible": not messages}
    return {**answer, "messages": messages} if is_verbose else answer


def _versions_to_check(state: Subjects, request: RegistryRequest) -> list[Version]:
    """Return the versions that a schema is checked against; never a deleted one."""
    versions, number = state.versions(request.subject), request.path.get("version")
    if number is None:
        return versions
    return versions[-1:] if number in ("latest", "-1") else [_with_number(versions, number)]


# -- configuration and mode


def get_config(request: RegistryRequest) -> Any:
    """``GET /config[/{subject}]``."""
    subject, or_global = request.subject_or_none, request.flag("defaultToGlobal")
    return request.topic.ask(
        lambda state: config_and_mode.config(state, subject, default_to_global=or_global)
    )


def set_config(request: RegistryRequest) -> Any:
    """``PUT /config[/{subject}]``."""
    subject = request.subject_or_none
    return request.change(lambda state: config_and_mode.set_config(state, subject, request.body))


def delete_config(request: RegistryRequest) -> Any:
    """``DELETE /config[/{subject}]``."""
    subject = request.subject_or_none
    return request.change(lambda state: config_and_mode.delete_config(state, subject))


def get_mode(request: RegistryRequest) -> Any:
    """``GET /mode[/{subject}]``."""
    subject, or_global = request.subject_or_none, request.flag("defaultToGlobal")
    return request.topic.ask(lambda state: config_and_mode.mode(state, subject, default_to_global=or_global))


def set_mode(request: RegistryRequest) -> Any:
    """``PUT /mode[/{subject}]``."""
    subject, mode, force = request.subject_or_none, request.body.get("mode"), request.flag("force")
    return request.change(lambda state: config_and_mode.set_mode(state, subject, mode, force=force))


def delete_mode(request: RegistryRequest) -> Any:
    """``DELETE /mode/{subject}``."""
    subject = request.subject
    return request.change(lambda state: config_and_mode.delete_mode(state, subject))


def get_cluster_ids(request: RegistryRequest) -> Any:
    """``GET /v1/metadata/id``."""
    clusters = {"kafka-cluster": request.topic.cluster_id, "schema-registry-cluster": "schema-registry"}
    return {"id": "", "scope": {"path": [], "clusters": clusters}}
