"""Whoever may only read changes nothing, however a request is written."""

from __future__ import annotations

import asyncio
import base64
import json
from urllib.parse import quote, unquote

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from starlette.middleware import Middleware

from tieline.api import Schema
from tieline.broker.local.log import LocalLog
from tieline.registry.http.app import application
from tieline.registry.http.auth import Authenticated, Users
from tieline.registry.http.request import READ, WRITE
from tieline.registry.http.routes import ROUTES, CallRoute
from tieline.registry.schema_topic import TOPIC, SchemaTopic, TopicSchemaStore

METHODS = ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "PROPFIND", "post"]
READER, WRITER = (b"Basic " + base64.b64encode(pair) for pair in (b"eve:look", b"ann:s3cret"))
BODY = json.dumps({"schema": '"string"', "compatibility": "NONE", "mode": "READONLY"}).encode()


class Registry:
    """Its answers as a server gives them, and all that its topic holds."""

    def __init__(self, folder):
        (folder / "users").write_text("basic ann s3cret\nbasic eve look read\n")
        self.log = LocalLog.open(folder / "log")
        TopicSchemaStore(self.log).register("s", Schema('"long"'))
        self.app = application(
            SchemaTopic(self.log), users=Middleware(Authenticated, Users(folder / "users"))
        )

    def records(self):
        found = []
        self.log.read(TOPIC, lambda record: found.append((record.key, record.value)))
        return found

    def ask(self, method, target, credentials):
        """The status, for a request target as it stands in the request's first line."""
        raw, _, query = target.partition(b"?")
        headers = [(b"authorization", credentials), (b"content-type", b"application/json")]
        scope = {
            "type": "http",
            "method": method,
            "path": unquote(raw.decode("ascii")),
            "raw_path": raw,
            "query_string": query,
            "root_path": "",
            "headers": headers,
            "http_version": "1.1",
            "scheme": "http",
            "server": ("127.0.0.1", 8081),
            "client": ("127.0.0.1", 1),
            "state": {},
        }
        sent = []

        async def receive():
            return {"type": "http.request", "body": BODY, "more_body": False}

        async def send(message):
            sent.append(message)

        asyncio.run(self.app(scope, receive, send))
        return sent[0]["status"]


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    made = Registry(tmp_path_factory.mktemp("access"))
    yield made
    made.log.close()


def paths():
    """Paths of routes with a subject, and parts of them, put together in any way."""
    subjects = st.sampled_from(["s", "new", "a/b", "versions", "s/versions", "ünï", "", ".", ".."])
    numbers = st.sampled_from(["1", "latest", "-1", "x", "1;v=2"])
    whole = st.builds(
        lambda route, subject, number: (
            route.path.replace("{subject:path}", subject)
            .replace("{version}", number)
            .replace("{id}", number)
            .replace("{guid}", number)
        ),
        st.sampled_from(ROUTES),
        subjects,
        numbers,
    )
    ends = st.sampled_from(
        ["", "", "\n", "\r\n", "/", "//", ";", ";a=b", " ", "\0", "?", "#", "/.", "\u2028"]
    )
    return st.builds(
        lambda before, path, end: before + path + end, st.sampled_from(["", "/", "/."]), whole, ends
    )


def encoded():
    """As it is, escaped everywhere, or twice, and with another case."""
    ways = [
        lambda path: quote(path, safe="/"),
        lambda path: quote(path, safe=""),
        lambda path: quote(quote(path, safe="/")),
        lambda path: "".join(f"%{byte:02x}" for byte in path.encode()),
        lambda path: quote(path.upper(), safe="/"),
        lambda path: quote(path, safe="/") + "?permanent=true&force=true&normalize=true",
    ]
    return st.builds(lambda path, way: way(path).encode("ascii"), paths(), st.sampled_from(ways))


@given(method=st.sampled_from(METHODS), target=encoded())
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whoever_may_only_read_changes_nothing_however_the_request_is_written(registry, method, target):
    before = registry.records()
    event(str(registry.ask(method, target, READER)))
    assert registry.records() == before


@pytest.mark.parametrize(
    "target",
    [
        "/subjects/s/versions%0A",
        "/subjects/s/versions%0a%0a",
        "/subjects/s/versions/",
        "/subjects/s%2Fversions",
        "/subjects%2Fs%2Fversions",
        "/subjects/s/%76ersions",
        "/config%0A",
        "/mode/s%0A",
    ],
)
@pytest.mark.parametrize("method", METHODS)
def test_no_spelling_of_a_path_lets_a_reader_write(registry, method, target):
    before = registry.records()
    status = registry.ask(method, target.encode(), READER)
    assert registry.records() == before
    assert status != 200 or method in ("GET", "HEAD")


def test_a_path_with_a_line_break_behind_it_is_another_path(registry):
    before = registry.records()
    assert registry.ask("POST", b"/subjects/s/versions%0A", WRITER) == 422  # a subject "s/versions\n"
    assert registry.ask("PUT", b"/config%0A", WRITER) == 404
    assert registry.records() == before


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
def test_each_route_that_writes_is_refused_to_a_reader_and_the_others_are_not(registry, route):
    path = route.path.replace("{subject:path}", "s").replace("{version}", "7").replace("{id}", "7")
    refused = registry.ask(route.method, path.encode(), READER) == 403
    assert refused is (route.access is WRITE)


def test_a_route_says_what_it_needs():
    with pytest.raises(TypeError):
        CallRoute("/new", "POST", call=lambda _: {})  # type: ignore[call-arg]
    asking = {(r.method, r.path) for r in ROUTES if r.access is READ and r.method != "GET"}
    assert asking == {
        ("POST", "/"),
        ("POST", "/subjects/{subject:path}"),
        ("POST", "/compatibility/subjects/{subject:path}/versions"),
        ("POST", "/compatibility/subjects/{subject:path}/versions/{version}"),
    }
    assert {r.access for r in ROUTES if r.method in ("PUT", "DELETE", "PATCH")} == {WRITE}


def test_a_route_that_says_it_reads_cannot_write(registry, monkeypatch):
    """Also where its declaration is wrong, and for those who may write."""
    register = next(
        r for r in ROUTES if r.path.endswith("/versions") and r.method == "POST" and r.access is WRITE
    )
    wrong = register._replace(access=READ, path="/wrong/{subject:path}")
    monkeypatch.setattr("tieline.registry.http.app.ROUTES", (*ROUTES, wrong))
    app, registry.app = registry.app, application(SchemaTopic(registry.log))
    before = registry.records()
    try:
        assert registry.ask("POST", b"/wrong/s", WRITER) == 403
    finally:
        registry.app = app
    assert registry.records() == before
