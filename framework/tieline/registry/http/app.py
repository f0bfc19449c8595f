"""Confluent's HTTP interface of a schema registry, as an ASGI application over the schema topic.

A schema that is known is returned by its id from memory, in the event loop. Everything else runs in a
thread, since it may wait for the broker.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from anyio import CapacityLimiter, to_thread
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from tieline.api import TielineError
from tieline.http.authentication import USER, Authentication, Authenticator
from tieline.http.errors import HttpError, error_response, exception_handlers
from tieline.http.requests import BodyTooLargeError, accepts, content_type, parse_json, read_body
from tieline.http.routing import Endpoint, ExactRoute, without_trailing_slash
from tieline.http.users import Account
from tieline.registry.http.access import READ, REQUIRED_ROLE, Access
from tieline.registry.http.request import RegistryRequest
from tieline.registry.http.routes import ROUTES, CallRoute
from tieline.registry.http.schema_routes import parse_id
from tieline.registry.model import errors
from tieline.registry.model.errors import RegistryError
from tieline.registry.model.events import content_json
from tieline.registry.schema_topic import SchemaTopic

MEDIA_TYPE = "application/vnd.schemaregistry.v1+json"

_BY_ID = "/schemas/ids/{id}"
_THREADS = 64  # for requests that read, and as many for requests that write
_BODY_TYPES = {
    MEDIA_TYPE,
    "application/vnd.schemaregistry+json",
    "application/json",
    "application/octet-stream",
}
_ANSWER_TYPES = {*_BODY_TYPES, "*/*", "application/*", ""}


def create_app(
    topic: SchemaTopic, max_bytes: int = 1_000_000, accounts: Sequence[Account] | None = None
) -> Starlette:
    """Return the registry as an ASGI application.

    ``max_bytes``: the largest body of a request. ``accounts``: who may use it, or ``None`` for no
    authentication at all.
    """
    # Requests that write wait for the broker, so those that read have threads of their own.
    threads = {access: CapacityLimiter(_THREADS) for access in Access}
    calls = _Calls(topic, max_bytes, threads, is_guarded=accounts is not None)
    middleware = [Middleware(without_trailing_slash)]
    if accounts is not None:
        authenticator = Authenticator(accounts)
        middleware.append(Middleware(Authentication, authenticator, "schema registry", MEDIA_TYPE))
    unexpected = errors.store_failed("an unexpected error; see the log of the registry")
    return Starlette(
        routes=[ExactRoute(route.path, calls.endpoint(route), [route.method]) for route in ROUTES],
        middleware=middleware,
        exception_handlers=exception_handlers(_http_error(unexpected), MEDIA_TYPE),
    )


class _Calls:
    """Wraps calls into endpoints that check access, size and types of a request before its call."""

    def __init__(
        self,
        topic: SchemaTopic,
        max_bytes: int,
        threads: Mapping[Access, CapacityLimiter],
        *,
        is_guarded: bool,
    ) -> None:
        self._topic = topic
        self._max_bytes = max_bytes
        self._threads = threads
        self._is_guarded = is_guarded

    def endpoint(self, route: CallRoute) -> Endpoint:
        async def endpoint(request: Request) -> Response:
            try:
                return await self._answer(route, request)
            except RegistryError as error:
                return _refuse(error)
            except TielineError as error:
                return _refuse(errors.store_failed(str(error)))
            except ClientDisconnect:
                return Response(status_code=400)  # no client is left to receive it

        # Every authenticated user may read, so the answer from memory needs no further check of the role.
        is_by_id = route.path == _BY_ID and route.access is READ
        return self._from_memory(endpoint) if is_by_id else endpoint

    def _from_memory(self, endpoint: Endpoint) -> Endpoint:
        """Answer a plain request for a known schema at once, and leave all others to ``endpoint``."""

        async def schema_by_id(request: Request) -> Response:
            schema_id = parse_id(request.path_params["id"])
            content = None if schema_id is None else self._topic.content(schema_id)
            if content is None or request.query_params or not accepts(request, _ANSWER_TYPES):
                return await endpoint(request)
            return Response(_to_bytes(content_json(content)), media_type=MEDIA_TYPE)

        return schema_by_id

    async def _answer(self, route: CallRoute, request: Request) -> Response:
        self._authorize(route, request)
        body = await self._body(request) if request.method in ("POST", "PUT") else b""
        if not accepts(request, _ANSWER_TYPES):
            raise RegistryError(406, 406, f"the registry answers with {MEDIA_TYPE} only")

        def call() -> bytes:
            fields = _parse_object(body) if body else {}
            parsed = RegistryRequest(
                self._topic, request.path_params, request.query_params, fields, route.access
            )
            return _to_bytes(route.call(parsed))

        answer = await to_thread.run_sync(call, limiter=self._threads[route.access])
        return Response(answer, media_type=MEDIA_TYPE)

    def _authorize(self, route: CallRoute, request: Request) -> None:
        if self._is_guarded:
            role = request.scope[USER].role
            if not role.includes(REQUIRED_ROLE[route.access]):
                raise errors.forbidden()

    async def _body(self, request: Request) -> bytes:
        try:
            body = await read_body(request, self._max_bytes)
        except BodyTooLargeError as error:
            raise errors.too_large(413, str(error)) from None
        if body and content_type(request) not in _BODY_TYPES:
            raise RegistryError(415, 415, f"the body must be {MEDIA_TYPE} or application/json")
        return body


def _parse_object(body: bytes) -> Mapping[str, Any]:
    try:
        value = parse_json(body)
    except ValueError:
        raise errors.unprocessable("the body is not JSON") from None
    if not isinstance(value, dict):
        raise errors.unprocessable("the body is not a JSON object")
    return value


def _to_bytes(answer: Any) -> bytes:
    return json.dumps(answer, separators=(",", ":")).encode()


def _refuse(error: RegistryError) -> Response:
    return error_response(_http_error(error), MEDIA_TYPE)


def _http_error(error: RegistryError) -> HttpError:
    return HttpError(error.status, error.code, str(error))
