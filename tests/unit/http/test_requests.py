"""Bodies, media types, routes and error answers of an application on the shared base."""

from __future__ import annotations

import asyncio
import json

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse

from tieline.http.errors import HttpError, error_response, exception_handlers
from tieline.http.requests import BodyTooLargeError, accepts, content_type, parse_json, read_body
from tieline.http.routing import ExactRoute, without_trailing_slash

MEDIA_TYPE = "application/vnd.test+json"


def scope_of(path="/", method="GET", **headers):
    return {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()],
    }


def request_with(*parts, **headers):
    messages = [{"type": "http.request", "body": part, "more_body": True} for part in parts]
    messages.append({"type": "http.request", "body": b"", "more_body": False})
    received = iter(messages)

    async def receive():
        return next(received)

    return Request(scope_of(**headers), receive), received


def test_a_body_is_read_up_to_its_limit_and_no_further():
    request, _ = request_with(b"12", b"34")
    assert asyncio.run(read_body(request, 4)) == b"1234"
    request, unread = request_with(b"12", b"345", b"6" * 1000, b"7" * 1000)
    with pytest.raises(BodyTooLargeError, match="more than 4 bytes"):
        asyncio.run(read_body(request, 4))
    assert len(list(unread)) == 3


@pytest.mark.parametrize("body", [b"{", b"NaN", b"[1e999]", b"-Infinity", b"[" * 100_000, b"\xff", b""])
def test_what_is_not_json_is_a_value_error(body):
    with pytest.raises(ValueError, match=r"."):
        parse_json(body)


def test_media_types_are_compared_without_parameters_and_case():
    request, _ = request_with(accept="text/html, Application/JSON ;q=0.5", content_type="Text/Plain; x=y")
    assert accepts(request, {"application/json"})
    assert not accepts(request, {"text/plain"})
    assert content_type(request) == "text/plain"


def test_a_request_without_an_accept_header_accepts_everything():
    request, _ = request_with()
    assert accepts(request, {"application/json"})
    assert content_type(request) == ""


def ask(app, path, method="GET"):
    """Return status, media type and body. Starlette raises an unexpected error again, for its server."""
    sent = []

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message):
        sent.append(message)

    try:
        asyncio.run(app(scope_of(path, method), receive, send))
    except ZeroDivisionError:
        assert path == "/broken"
    return sent[0]["status"], dict(sent[0]["headers"])[b"content-type"].decode(), sent[1]["body"]


@pytest.fixture
def app():
    async def here(request):
        return PlainTextResponse("here")

    async def broken(request):
        raise ZeroDivisionError("a secret")

    unexpected = HttpError(500, 50001, "an unexpected error; see the log")
    return Starlette(
        routes=[ExactRoute("/a/b", here, ["GET"]), ExactRoute("/broken", broken, ["GET"])],
        middleware=[Middleware(without_trailing_slash)],
        exception_handlers=exception_handlers(unexpected, MEDIA_TYPE),
    )


def test_a_route_matches_its_whole_path_with_or_without_a_last_slash(app):
    assert [ask(app, path)[0] for path in ("/a/b", "/a/b/", "/a/b\n", "/a/b/c", "//a/b")] == [
        *(200, 200, 404, 404, 404)
    ]


@pytest.mark.parametrize(
    ("path", "method", "status", "code"),
    [("/nothing", "GET", 404, 404), ("/a/b", "PUT", 405, 405), ("/broken", "GET", 500, 50001)],
)
def test_every_error_has_a_code_and_a_message_and_no_details(app, path, method, status, code):
    answer, media_type, body = ask(app, path, method)
    assert (answer, media_type) == (status, MEDIA_TYPE)
    assert json.loads(body)["error_code"] == code
    assert json.loads(body)["message"]
    assert b"secret" not in body


def test_an_error_answer_has_its_headers():
    response = error_response(HttpError(429, 429, "wait", {"Retry-After": "6"}))
    assert (response.status_code, response.headers["retry-after"]) == (429, "6")
    assert response.body == b'{"error_code":429,"message":"wait"}'
