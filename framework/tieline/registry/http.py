"""Confluent's HTTP interface of a schema registry, over the topic; what it refuses, it says in a sentence.

A schema by its id is answered from memory in the event loop; everything else runs in a thread, since it may
wait for the broker.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tieline import __version__
from tieline.api import TielineError
from tieline.registry import errors, rules, scopes
from tieline.registry.errors import RegistryError
from tieline.registry.formats import TYPES
from tieline.registry.records import MAX_ID, Content, Reference, canonical_json
from tieline.registry.subjects import Subjects, Version, guid_of
from tieline.registry.topic import SchemaTopic

log = logging.getLogger(__name__)

MEDIA_TYPE = "application/vnd.schemaregistry.v1+json"
_TAKEN = {MEDIA_TYPE, "application/vnd.schemaregistry+json", "application/json", "application/octet-stream"}
_ACCEPTED = {*_TAKEN, "*/*", "application/*", ""}
_MOST_IN_A_LIST = 10_000

Call = Callable[["Asked"], Any]


class Asked(NamedTuple):
    """One request."""

    topic: SchemaTopic
    path: Mapping[str, str]
    query: Mapping[str, str]
    body: Mapping[str, Any]

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
        """Make a change; what is to be answered."""
        return self.topic.change(rule).answer


def application(topic: SchemaTopic, max_bytes: int = 1_000_000) -> Starlette:
    """The registry as an ASGI application. ``max_bytes``: of a request's body."""

    def route(path: str, method: str, call: Call) -> Route:
        return Route(path, _endpoint(topic, max_bytes, call), methods=[method])

    async def by_id(request: Request) -> Response:
        """From memory, if it can be; else as everything."""
        number = request.path_params["id"]
        content = topic.content(int(number)) if number.isdigit() and len(number) < 11 else None
        if content is None or request.query_params or not _accepts(request):
            return await everything(request)
        return _reply(_content(content))

    everything = _endpoint(topic, max_bytes, _schema_by_id)
    one = "/subjects/{subject:path}/versions/{version}"
    routes = [
        Route("/schemas/ids/{id}", by_id, methods=["GET"]),
        route("/schemas/ids/{id}/schema", "GET", _text_by_id),
        route("/schemas/ids/{id}/subjects", "GET", lambda asked: [v.subject for v in _places(asked)]),
        route("/schemas/ids/{id}/versions", "GET", _versions_by_id),
        route("/schemas/guids/{guid}", "GET", _schema_by_guid),
        route("/schemas/guids/{guid}/ids", "GET", lambda asked: [{"context": ".", "id": _guid(asked)}]),
        route("/schemas/types", "GET", lambda _: list(TYPES)),
        route("/schemas", "GET", _schemas),
        route(f"{one}/schema", "GET", lambda asked: json.loads(_version(asked).content.text)),
        route(f"{one}/referencedby", "GET", _referenced_by),
        route(one, "GET", lambda asked: _told(_version(asked))),
        route(one, "DELETE", _delete_version),
        route("/subjects/{subject:path}/versions", "GET", _versions),
        route("/subjects/{subject:path}/versions", "POST", _register),
        route("/subjects/{subject:path}", "POST", _lookup),
        route("/subjects/{subject:path}", "DELETE", _delete_subject),
        route("/subjects", "GET", _subjects),
        route("/compatibility" + one, "POST", _check),
        route("/compatibility/subjects/{subject:path}/versions", "POST", _check),
        route("/contexts", "GET", lambda _: ["."]),
        route("/v1/metadata/id", "GET", _metadata),
        route("/v1/metadata/version", "GET", lambda _: {"version": __version__, "commitId": ""}),
        route("/", "GET", lambda _: {}),
        route("/", "POST", lambda _: {}),
    ]
    for tail in ("", "/{subject:path}"):
        routes += [
            route(f"/config{tail}", "GET", _config),
            route(f"/config{tail}", "PUT", _set_config),
            route(f"/config{tail}", "DELETE", _delete_config),
            route(f"/mode{tail}", "GET", _mode),
            route(f"/mode{tail}", "PUT", _set_mode),
        ]
    routes.append(route("/mode/{subject:path}", "DELETE", _delete_mode))
    return Starlette(routes=routes, exception_handlers={HTTPException: _no_route, Exception: _broken})


def _endpoint(topic: SchemaTopic, max_bytes: int, call: Call) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        try:
            body = await _body(request, max_bytes) if request.method in ("POST", "PUT") else {}
            if not _accepts(request):
                raise RegistryError(406, 406, f"it answers with {MEDIA_TYPE}")
            asked = Asked(topic, request.path_params, request.query_params, body)
            return _reply(await run_in_threadpool(call, asked))
        except RegistryError as error:
            return refusal(error)
        except TielineError as error:
            return refusal(errors.store_failed(str(error)))

    return endpoint


async def _body(request: Request, max_bytes: int) -> Mapping[str, Any]:
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    data = bytearray()
    async for part in request.stream():
        data += part
        if len(data) > max_bytes:
            raise errors.too_large(413, f"the body has more than {max_bytes} bytes")
    if not data:
        return {}
    if media not in _TAKEN:
        raise RegistryError(415, 415, f"the body must be {MEDIA_TYPE} or application/json")
    try:
        found = json.loads(bytes(data))
    except (ValueError, RecursionError):
        raise errors.unprocessable("the body is no JSON") from None
    if not isinstance(found, dict):
        raise errors.unprocessable("the body is no JSON object")
    return found


def _accepts(request: Request) -> bool:
    asked = request.headers.get("accept", "")
    return any(part.partition(";")[0].strip().lower() in _ACCEPTED for part in asked.split(","))


def _reply(answer: Any, status: int = 200) -> Response:
    return Response(json.dumps(answer, separators=(",", ":")), status, media_type=MEDIA_TYPE)


def refusal(error: RegistryError) -> Response:
    """The answer of a registry that refuses."""
    return _reply({"error_code": error.code, "message": str(error)}, error.status)


async def _no_route(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return refusal(
        RegistryError(error.status_code, error.status_code, f"HTTP {error.status_code} {error.detail}")
    )


async def _broken(_: Request, error: Exception) -> Response:
    log.error("a request failed on an error that nobody expected", exc_info=error)
    return refusal(errors.store_failed("an error that nobody expected; the registry's log has it"))


# -- schemas by id


def _schema_by_id(asked: Asked) -> Any:
    schema_id = _id(asked)

    def find(state: Subjects) -> Content:
        content = state.content(schema_id)
        if content is None:
            raise errors.schema_not_found(schema_id)
        return content

    content = asked.topic.ask(find)
    more = {"maxId": asked.topic.peek(lambda state: state.max_id)} if asked.flag("fetchMaxId") else {}
    return {**_content(content), **more}


def _text_by_id(asked: Asked) -> Any:
    return json.loads(_schema_by_id(asked)["schema"])


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
    return {} if content is None else _content(content)


def _id(asked: Asked) -> int:
    text = asked.path["id"]
    if not (text.isascii() and text.isdigit()) or len(text) > 10:
        raise errors.schema_not_found(text[:50])
    return int(text)


# -- subjects


def _schemas(asked: Asked) -> Any:
    prefix, deleted = asked.query.get("subjectPrefix", ""), asked.flag("deleted")

    def find(state: Subjects) -> list[Version]:
        names = [name for name in state.names() if name.startswith(prefix)]
        found = [state.versions(name, deleted=deleted) for name in names]
        return [v for versions in found for v in (versions[-1:] if asked.flag("latestOnly") else versions)]

    return [_told(version) for version in asked.page(asked.topic.ask(find))[:_MOST_IN_A_LIST]]


def _subjects(asked: Asked) -> Any:
    prefix, only, deleted = (
        asked.query.get("subjectPrefix", ""),
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
    """The version in the path: a number, ``latest`` or ``-1``."""
    subject, number = asked.subject, asked.path["version"]
    versions = state.versions(subject, deleted=deleted)
    if not versions:
        raise errors.subject_not_found(subject)
    if number in ("latest", "-1"):
        return versions[-1]
    if not (number.isascii() and number.isdigit() and len(number) < 11 and 0 < int(number) <= MAX_ID):
        raise errors.invalid_version(number[:100])
    chosen = [version for version in versions if version.number == int(number)]
    if not chosen:
        raise errors.version_not_found(int(number))
    return chosen[0]


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
    return {"id": found.id, "version": found.number, **_guid_told(found.content), **_content(found.content)}


def _lookup(asked: Asked) -> Any:
    deleted = asked.flag("deleted")

    def find(state: Subjects) -> Version:
        if not state.has(asked.subject, deleted=deleted):
            raise errors.subject_not_found(asked.subject)
        found = rules.lookup(state, asked.subject, asked.content(state), deleted=deleted)
        if found is None:
            raise errors.schema_not_found()
        return found

    return _told(asked.topic.ask(find))


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
    told = {"messages": messages} if asked.flag("verbose") else {}
    return {"is_compatible": not messages, **told}


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


def _told(version: Version) -> dict[str, Any]:
    named = {"subject": version.subject, "version": version.number, "id": version.id}
    return {**named, **_guid_told(version.content), **_content(version.content)}


def _content(content: Content) -> dict[str, Any]:
    told: dict[str, Any] = {"schema": content.text}
    if content.type != "AVRO":
        told["schemaType"] = content.type
    if content.references:
        told["references"] = [reference._asdict() for reference in content.references]
    if content.metadata:
        told["metadata"] = json.loads(content.metadata)
    if content.rules:
        told["ruleSet"] = json.loads(content.rules)
    return told


def _guid_told(content: Content) -> dict[str, str]:
    guid = guid_of(content)
    return {} if guid is None else {"guid": guid}


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
    return value


def _whole(value: Any, name: str) -> int | None:
    if value is not None and (type(value) is not int or value < -1):
        raise errors.unprocessable(f"{name} is no number")
    return value if value and value > 0 else None
