"""The calls of Confluent's interface, each a function of what is asked."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from tieline import __version__
from tieline.registry import errors, rules, scopes
from tieline.registry.asked import Asked
from tieline.registry.formats import TYPES
from tieline.registry.records import MAX_ID, Content
from tieline.registry.subjects import Subjects, Version, guid_of

_MOST_IN_A_LIST = 10_000

Call = Callable[[Asked], Any]


# -- schemas by id


def schema_by_id(asked: Asked) -> Any:
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


def _text_by_id(asked: Asked) -> Any:
    return json.loads(schema_by_id(asked)["schema"])


def _places(asked: Asked) -> list[Version]:
    schema_id, only = _id(asked), asked.query.get("subject")

    def find(state: Subjects) -> list[Version]:
        found = state.places(schema_id)
        if not found:
            raise errors.schema_not_found(schema_id)
        return [v for v in found if (asked.flag("deleted") or not v.deleted) and only in (None, v.subject)]

    return asked.page(asked.topic.ask(find))


def _versions_by_id(asked: Asked) -> Any:
    return [{"subject": version.subject, "version": version.number} for version in _places(asked)]


def _guid(asked: Asked) -> int:
    guid = asked.path["guid"].lower()

    def find(state: Subjects) -> int:
        found = state.find_guid(guid)
        if found is None:
            raise errors.schema_not_found(guid)
        return found

    return asked.topic.ask(find)


def _schema_by_guid(asked: Asked) -> Any:
    content = asked.topic.content(_guid(asked))
    return {} if content is None else content_told(content)


def as_id(text: str) -> int | None:
    """The id in a path; none where it is none."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 10 else None


def _id(asked: Asked) -> int:
    found = as_id(asked.path["id"])
    if found is None:
        raise errors.schema_not_found(asked.path["id"][:50])
    return found


# -- subjects


def _schemas(asked: Asked) -> Any:
    prefix, deleted = _prefix(asked), asked.flag("deleted")

    def find(state: Subjects) -> list[Version]:
        names = [name for name in state.names() if name.startswith(prefix)]
        found = [state.versions(name, deleted=deleted) for name in names]
        return [v for versions in found for v in (versions[-1:] if asked.flag("latestOnly") else versions)]

    return [told(version) for version in asked.page(asked.topic.ask(find))[:_MOST_IN_A_LIST]]


def _prefix(asked: Asked) -> str:
    """``:*:`` is all contexts, ``:.:`` the default one, which is all that there are."""
    return asked.query.get("subjectPrefix", "").removeprefix(":*:").removeprefix(":.:")


def _subjects(asked: Asked) -> Any:
    prefix, only, deleted = (
        _prefix(asked),
        asked.flag("deletedOnly"),
        asked.flag("deleted"),
    )

    def find(state: Subjects) -> list[str]:
        names = [name for name in state.names() if name.startswith(prefix)]
        if only:
            return [name for name in names if not state.has(name)]
        return [name for name in names if state.has(name, deleted=deleted)]

    return asked.page(asked.topic.ask(find))


def _versions(asked: Asked) -> Any:
    only = asked.flag("deletedOnly")

    def find(state: Subjects) -> list[int]:
        found = state.versions(asked.subject, deleted=only or asked.flag("deleted"))
        if not found:
            raise errors.subject_not_found(asked.subject)
        return [version.number for version in found if version.deleted or not only]

    return asked.page(asked.topic.ask(find))


def _version(asked: Asked) -> Version:
    return asked.topic.ask(lambda state: _found(state, asked, deleted=asked.flag("deleted")))


def _found(state: Subjects, asked: Asked, *, deleted: bool = False) -> Version:
    """The version in the path: a number, ``latest`` or ``-1``. The latest is never one that was deleted."""
    subject, number = asked.subject, asked.path["version"]
    versions = state.versions(subject, deleted=deleted)
    if not versions:
        raise errors.subject_not_found(subject)
    if number in ("latest", "-1"):
        live = state.versions(subject)
        if not live:
            raise errors.version_not_found(-1)
        return live[-1]
    if not (number.isascii() and number.isdigit() and len(number) < 11 and 0 < int(number) <= MAX_ID):
        raise errors.invalid_version(number[:100])
    chosen = [version for version in versions if version.number == int(number)]
    if not chosen:
        raise errors.version_not_found(int(number))
    return chosen[0]


def _with_metadata(asked: Asked) -> Any:
    """The latest version whose metadata have these properties: ``?key=…&value=…``, each maybe again."""
    wanted = dict(zip(asked.query.getlist("key"), asked.query.getlist("value"), strict=False))

    def find(state: Subjects) -> Version:
        versions = state.versions(asked.subject, deleted=asked.flag("deleted"))
        if not versions:
            raise errors.subject_not_found(asked.subject)
        matching = [version for version in versions if wanted.items() <= _properties(version.content).items()]
        if not matching:
            raise errors.schema_not_found()
        return matching[-1]

    return told(asked.topic.ask(find))


def _properties(content: Content) -> dict[str, Any]:
    found = json.loads(content.metadata or "{}").get("properties")
    return found if isinstance(found, dict) else {}


def _referenced_by(asked: Asked) -> Any:
    def find(state: Subjects) -> list[int]:
        version = _found(state, asked)
        return state.referrers(version.subject, version.number)

    return asked.topic.ask(find)


def _register(asked: Asked) -> Any:
    normalize = asked.flag("normalize")
    found: Version = asked.answer_of(
        lambda state: rules.register(state, asked.subject, asked.schema(state), normalize=normalize)
    )
    return {
        "id": found.id,
        "version": found.number,
        **guid_told(found.content),
        **content_told(found.content),
    }


def _lookup(asked: Asked) -> Any:
    deleted = asked.flag("deleted")

    def find(state: Subjects) -> Version:
        if not state.has(asked.subject, deleted=deleted):
            raise errors.subject_not_found(asked.subject)
        found = rules.lookup(state, asked.subject, asked.content(state), deleted=deleted)
        if found is None:
            raise errors.schema_not_found()
        return found

    return told(asked.topic.ask(find))


def _delete_subject(asked: Asked) -> Any:
    permanent = asked.flag("permanent")
    return asked.answer_of(lambda state: rules.delete_subject(state, asked.subject, permanent=permanent))


def _delete_version(asked: Asked) -> Any:
    permanent = asked.flag("permanent")

    def delete(state: Subjects) -> rules.Decision:
        number = _found(state, asked, deleted=True).number
        return rules.delete_version(state, asked.subject, number, permanent=permanent)

    return asked.answer_of(delete)


def _check(asked: Asked) -> Any:
    def find(state: Subjects) -> list[str]:
        one = [_found(state, asked)] if "version" in asked.path else state.versions(asked.subject)
        return rules.messages(state, asked.subject, asked.content(state), one)

    asked.topic.catch_up()
    messages = asked.topic.ask(find)
    more = {"messages": messages} if asked.flag("verbose") else {}
    return {"is_compatible": not messages, **more}


# -- configuration and mode


def _config(asked: Asked) -> Any:
    subject, wider = asked.maybe_subject, asked.flag("defaultToGlobal")
    return asked.topic.ask(lambda state: scopes.config(state, subject, default_to_global=wider))


def _set_config(asked: Asked) -> Any:
    return asked.answer_of(lambda state: scopes.set_config(state, asked.maybe_subject, asked.body))


def _delete_config(asked: Asked) -> Any:
    return asked.answer_of(lambda state: scopes.delete_config(state, asked.maybe_subject))


def _mode(asked: Asked) -> Any:
    subject, wider = asked.maybe_subject, asked.flag("defaultToGlobal")
    return asked.topic.ask(lambda state: scopes.mode(state, subject, default_to_global=wider))


def _set_mode(asked: Asked) -> Any:
    mode, force = asked.body.get("mode"), asked.flag("force")
    return asked.answer_of(lambda state: scopes.set_mode(state, asked.maybe_subject, mode, force=force))


def _delete_mode(asked: Asked) -> Any:
    return asked.answer_of(lambda state: scopes.delete_mode(state, asked.subject))


def _metadata(asked: Asked) -> Any:
    clusters = {"kafka-cluster": asked.topic.cluster_id, "schema-registry-cluster": "schema-registry"}
    return {"id": "", "scope": {"path": [], "clusters": clusters}}


# -- JSON


def told(version: Version) -> dict[str, Any]:
    """A version as JSON."""
    named = {"subject": version.subject, "version": version.number, "id": version.id}
    return {**named, **guid_told(version.content), **content_told(version.content)}


def content_told(content: Content) -> dict[str, Any]:
    """A schema as JSON."""
    found: dict[str, Any] = {"schema": content.text}
    if content.type != "AVRO":
        found["schemaType"] = content.type
    if content.references:
        found["references"] = [reference._asdict() for reference in content.references]
    if content.metadata:
        found["metadata"] = json.loads(content.metadata)
    if content.rules:
        found["ruleSet"] = json.loads(content.rules)
    return found


def guid_told(content: Content) -> dict[str, str]:
    """Its name that is the same in every registry, where it has one."""
    guid = guid_of(content)
    return {} if guid is None else {"guid": guid}


_VERSION = "/subjects/{subject:path}/versions/{version}"
ROUTES: list[tuple[str, str, Call]] = [
    ("/schemas/ids/{id}", "GET", schema_by_id),
    ("/schemas/ids/{id}/schema", "GET", _text_by_id),
    ("/schemas/ids/{id}/subjects", "GET", lambda asked: [v.subject for v in _places(asked)]),
    ("/schemas/ids/{id}/versions", "GET", _versions_by_id),
    ("/schemas/guids/{guid}", "GET", _schema_by_guid),
    ("/schemas/guids/{guid}/ids", "GET", lambda asked: [{"context": ".", "id": _guid(asked)}]),
    ("/schemas/types", "GET", lambda _: list(TYPES)),
    ("/schemas", "GET", _schemas),
    (f"{_VERSION}/schema", "GET", lambda asked: json.loads(_version(asked).content.text)),
    ("/subjects/{subject:path}/metadata", "GET", _with_metadata),
    (f"{_VERSION}/referencedby", "GET", _referenced_by),
    (_VERSION, "GET", lambda asked: told(_version(asked))),
    (_VERSION, "DELETE", _delete_version),
    ("/subjects/{subject:path}/versions", "GET", _versions),
    ("/subjects/{subject:path}/versions", "POST", _register),
    ("/subjects/{subject:path}", "POST", _lookup),
    ("/subjects/{subject:path}", "DELETE", _delete_subject),
    ("/subjects", "GET", _subjects),
    ("/compatibility" + _VERSION, "POST", _check),
    ("/compatibility/subjects/{subject:path}/versions", "POST", _check),
    ("/contexts", "GET", lambda _: ["."]),
    ("/v1/metadata/id", "GET", _metadata),
    ("/v1/metadata/version", "GET", lambda _: {"version": __version__, "commitId": ""}),
    ("/", "GET", lambda _: {}),
    ("/", "POST", lambda _: {}),
    *(
        (path + tail, method, call)
        for tail in ("", "/{subject:path}")
        for path, method, call in (
            ("/config", "GET", _config),
            ("/config", "PUT", _set_config),
            ("/config", "DELETE", _delete_config),
            ("/mode", "GET", _mode),
            ("/mode", "PUT", _set_mode),
        )
    ),
    ("/mode/{subject:path}", "DELETE", _delete_mode),
]
"""Path, method, and what answers."""
