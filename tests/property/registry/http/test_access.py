"""A viewer changes nothing, however a request is written, and each role is enforced on every route."""

from __future__ import annotations

import asyncio
import base64
import json
from urllib.parse import quote, unquote

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from tieline.api import Schema
from tieline.broker.local.log import LocalLog
from tieline.http.passwords import hash_password
from tieline.http.users import Account, Role, User
from tieline.registry.http.access import READ, WRITE
from tieline.registry.http.app import create_app
from tieline.registry.http.routes import ROUTES, CallRoute
from tieline.registry.schema_topic import TOPIC, SchemaTopic, TopicSchemaStore

METHODS = ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "PROPFIND", "post"]
CREDENTIALS = {role: b"Basic " + base64.b64encode(f"{role.value}:secret".encode()) for role in Role}
READER, WRITER = CREDENTIALS[Role.VIEWER], CREDENTIALS[Role.OPERATOR]
NOT_A_USER = [b"", b"Basic " + base64.b64encode(b"viewer:other"), b"Bearer secret", b"Basic !"]
BODY = json.dumps({"schema": '"string"', "compatibility": "NONE", "mode": "READONLY"}).encode()


class Registry:
    """An application as a server calls it, and the records of its topic."""

    def __init__(self, folder):
        self.log = LocalLog.open(folder / "log")
        TopicSchemaStore(self.log).register("s", Schema('"long"'))
        hash_ = hash_password("secret")
        accounts = [Account(User(role.value, role), "password", hash_) for role in Role]
        self.app = create_app(SchemaTopic(self.log), accounts=accounts)

    def records(self):
        records = []
        self.log.read(TOPIC, lambda record: records.append((record.key, record.value)))
        return records

    def ask(self, method, target, credentials, client="127.0.0.1"):
        """Return the status of a request whose first line has this target."""
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
            "client": (client, 1),
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
    registry = Registry(tmp_path_factory.mktemp("access"))
    yield registry
    registry.log.close()


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A registry that tests may change."""
    registry = Registry(tmp_path_factory.mktemp("written"))
    yield registry
    registry.log.close()


def paths():
    """Generate paths of routes with a subject, and parts of them in any combination."""
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
    """Generate paths as they are, escaped everywhere or twice, and in upper case."""
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
def test_a_viewer_changes_nothing_however_the_request_is_written(registry, method, target):
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
def test_no_spelling_of_a_path_lets_a_viewer_write(registry, method, target):
    before = registry.records()
    status = registry.ask(method, target.encode(), READER)
    assert registry.records() == before
    assert status != 200 or method in ("GET", "HEAD")


def test_a_path_that_ends_with_a_line_break_is_another_path(registry):
    before = registry.records()
    assert registry.ask("POST", b"/subjects/s/versions%0A", WRITER) == 422  # a subject "s/versions\n"
    assert registry.ask("PUT", b"/config%0A", WRITER) == 404
    assert registry.records() == before


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
@pytest.mark.parametrize("role", Role)
def test_every_route_grants_reading_to_all_roles_and_writing_to_operators_and_admins(written, role, route):
    path = route.path.replace("{subject:path}", "s").replace("{version}", "7").replace("{id}", "7")
    is_refused = written.ask(route.method, path.encode(), CREDENTIALS[role]) == 403
    assert is_refused is (route.access is WRITE and role is Role.VIEWER)


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
@pytest.mark.parametrize("credentials", NOT_A_USER)
def test_every_route_refuses_a_client_without_valid_credentials(registry, credentials, route):
    path = route.path.replace("{subject:path}", "s").replace("{version}", "1").replace("{id}", "1")
    before = registry.records()
    client = f"127.0.1.{ROUTES.index(route)}"  # each with its own limit of failed logins
    assert registry.ask(route.method, path.encode(), credentials, client) == 401
    assert registry.records() == before


def test_every_route_states_its_access():
    with pytest.raises(TypeError):
        CallRoute("/new", "POST", call=lambda _: {})  # type: ignore[call-arg]
    reading = {(r.method, r.path) for r in ROUTES if r.access is READ and r.method != "GET"}
    assert reading == {
        ("POST", "/"),
        ("POST", "/subjects/{subject:path}"),
        ("POST", "/compatibility/subjects/{subject:path}/versions"),
        ("POST", "/compatibility/subjects/{subject:path}/versions/{version}"),
    }
    assert {r.access for r in ROUTES if r.method in ("PUT", "DELETE", "PATCH")} == {WRITE}


def test_a_route_that_is_declared_to_read_cannot_write(registry, monkeypatch):
    """This holds even if the declaration is wrong, and for operators."""
    register = next(
        r for r in ROUTES if r.path.endswith("/versions") and r.method == "POST" and r.access is WRITE
    )
    wrong = register._replace(access=READ, path="/wrong/{subject:path}")
    monkeypatch.setattr("tieline.registry.http.app.ROUTES", (*ROUTES, wrong))
    app, registry.app = registry.app, create_app(SchemaTopic(registry.log))
    before = registry.records()
    try:
        assert registry.ask("POST", b"/wrong/s", WRITER) == 403
    finally:
        registry.app = app
    assert registry.records() == before
