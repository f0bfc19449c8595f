"""Confluent's HTTP interface of a schema registry, over the topic; what it refuses, it says in a sentence.

A schema by its id is answered from memory in the event loop; everything else runs in a thread, since it may
wait for the broker.
"""

from __future__ import annotations

import json
import logging
import math
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from anyio import CapacityLimiter, to_thread
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from tieline.api import TielineError
from tieline.registry.http.request import Access, RegistryRequest
from tieline.registry.http.responses import content_told
from tieline.registry.http.routes import ROUTES, CallRoute
from tieline.registry.http.schema_routes import as_id
from tieline.registry.model import errors
from tieline.registry.model.errors import RegistryError
from tieline.registry.schema_topic import SchemaTopic

log = logging.getLogger(__name__)

GRANTED = "tieline.registry.granted"
"""In an ASGI scope: the `Access` that the request's credentials have."""
_BY_ID = "/schemas/ids/{id}"
Endpoint = Callable[[Request], Awaitable[Response]]
Threads = Mapping[Access, CapacityLimiter]
_THREADS = 64  # for those who read, and as many for those who write

MEDIA_TYPE = "application/vnd.schemaregistry.v1+json"
_TAKEN = {MEDIA_TYPE, "application/vnd.schemaregistry+json", "application/json", "application/octet-stream"}
_ACCEPTED = {*_TAKEN, "*/*", "application/*", ""}


def application(topic: SchemaTopic, max_bytes: int = 1_000_000, users: Middleware | None = None) -> Starlette:
    """The registry as an ASGI application. ``max_bytes``: of a request's body.

    ``users``: sets ``scope[GRANTED]`` or refuses; without it everybody may do everything.
    """
    # Writers wait for the broker: readers have threads of their own.
    threads = {access: CapacityLimiter(_THREADS) for access in Access}

    def endpoint(route: CallRoute) -> _ExactRoute:
        answer = _endpoint(topic, max_bytes, route, threads, guarded=users is not None)
        if route.path == _BY_ID:
            answer = _from_memory(topic, answer)
        return _ExactRoute(route.path, answer, methods=[route.method])

    return Starlette(
        routes=[endpoint(route) for route in ROUTES],
        middleware=[Middleware(_without_last_slash), *([] if users is None else [users])],
        exception_handlers={HTTPException: _no_route, Exception: _broken},
    )


class _ExactRoute(Route):
    """A route that matches whole paths: Starlette's ``$`` also matches before a last newline."""

    def __init__(self, path: str, endpoint: Endpoint, methods: list[str]) -> None:
        super().__init__(path, endpoint, methods=methods)
        pattern = self.path_regex.pattern
        assert pattern.endswith("$")
        self.path_regex = re.compile(rf"{pattern[:-1]}\Z", self.path_regex.flags | re.DOTALL)


def _from_memory(topic: SchemaTopic, everything: Endpoint) -> Endpoint:
    """A schema by its id: at once, if it is known; else as everything. Its route needs to read alone."""

    async def by_id(request: Request) -> Response:
        number = as_id(request.path_params["id"])
        content = None if number is None else topic.content(number)
        if content is None or request.query_params or not _accepts(request):
            return await everything(request)
        return _reply(content_told(content))

    return by_id


def _without_last_slash(app: ASGIApp) -> ASGIApp:
    """``/config/`` is ``/config``, as it is for Confluent's; some clients ask so for what no subject has."""

    async def bare(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] != "/" and scope["raw_path"].endswith(b"/"):
            scope = {**scope, "path": scope["path"][:-1], "raw_path": scope["raw_path"][:-1]}
        await app(scope, receive, send)

    return bare


def _endpoint(
    topic: SchemaTopic, max_bytes: int, route: CallRoute, threads: Threads, *, guarded: bool
) -> Endpoint:
    async def endpoint(request: Request) -> Response:
        try:
            granted = request.scope.get(GRANTED) if guarded else Access.WRITE
            if granted not in (route.access, Access.WRITE):
                raise errors.forbidden()
            data = await _body(request, max_bytes) if request.method in ("POST", "PUT") else b""
            if not _accepts(request):
                raise RegistryError(406, 406, f"it answers with {MEDIA_TYPE}")

            def call() -> bytes:
                body = _object(data) if data else {}
                asked = RegistryRequest(topic, request.path_params, request.query_params, body, route.access)
                return _json(route.call(asked))

            return Response(
                await to_thread.run_sync(call, limiter=threads[route.access]), media_type=MEDIA_TYPE
            )
        except RegistryError as error:
            return refusal(error)
        except TielineError as error:
            return refusal(errors.store_failed(str(error)))
        except ClientDisconnect:
            return Response(status_code=400)  # which nobody takes

    return endpoint


async def _body(request: Request, max_bytes: int) -> bytes:
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    data = bytearray()
    async for part in request.stream():
        data += part
        if len(data) > max_bytes:
            raise errors.too_large(413, f"the body has more than {max_bytes} bytes")
    if data and media not in _TAKEN:
        raise RegistryError(415, 415, f"the body must be {MEDIA_TYPE} or application/json")
    return bytes(data)


def _object(data: bytes) -> Mapping[str, Any]:
    try:
        found = json.loads(data, parse_float=_finite, parse_constant=_finite)
    except (ValueError, RecursionError):
        raise errors.unprocessable("the body is no JSON") from None
    if not isinstance(found, dict):
        raise errors.unprocessable("the body is no JSON object")
    return found


def _finite(text: str) -> float:
    """JSON has no other number."""
    found = float(text)
    if not math.isfinite(found):
        raise ValueError(text)
    return found


def _accepts(request: Request) -> bool:
    asked = request.headers.get("accept", "")
    return any(part.partition(";")[0].strip().lower() in _ACCEPTED for part in asked.split(","))


def _json(answer: Any) -> bytes:
    return json.dumps(answer, separators=(",", ":")).encode()


def _reply(answer: Any, status: int = 200) -> Response:
    return Response(_json(answer), status, media_type=MEDIA_TYPE)


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
