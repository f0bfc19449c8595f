"""A running worker with pages, and a browser without JavaScript."""

from __future__ import annotations

import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from contextlib import ExitStack
from http.cookiejar import CookieJar
from pathlib import Path
from typing import NamedTuple

import pytest

from tieline.config.plan import Plan, check_plan
from tieline.http.passwords import hash_password
from tieline.http.users import Account, Role, User
from tieline.runtime.worker.factory import open_broker
from tieline.runtime.worker.worker import Worker
from tieline.ui.server import PageServer

PASSWORD = "correct horse battery"


class PageAnswer(NamedTuple):
    """What a browser shows: the address at the end, the status, the HTML and the headers."""

    url: str
    status: int
    html: str
    headers: dict[str, str]


class Browser:
    """Follows redirects and keeps cookies; fills forms with the token of the last page."""

    def __init__(self, url: str) -> None:
        self.base = url.rstrip("/").removesuffix("/ui")
        self.cookies = CookieJar()
        self._opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(self.cookies))
        self.token = ""

    def get(self, path: str, headers: dict[str, str] | None = None) -> PageAnswer:
        """Open a page below ``/ui``, or any other address that begins with http."""
        return self._open(urllib.request.Request(self._address(path), headers=headers or {}))

    def post(self, path: str, headers: dict[str, str] | None = None, **fields: str) -> PageAnswer:
        """Send a form, with the token of the last page unless ``form_token`` is given."""
        body = urllib.parse.urlencode({"form_token": self.token, **fields}).encode()
        return self._open(urllib.request.Request(self._address(path), body, headers or {}))

    def sign_in(self, name: str, password: str = PASSWORD) -> PageAnswer:
        """Sign in at the form."""
        self.get("/sign-in")
        return self.post("/sign-in", name=name, password=password, to="/ui/alarms")

    def _address(self, path: str) -> str:
        return path if path.startswith("http") else f"{self.base}/ui{path}"

    def _open(self, request: urllib.request.Request) -> PageAnswer:
        try:
            response = self._opener.open(request, timeout=20)
        except urllib.error.HTTPError as error:
            response = error
        with response:
            html = response.read().decode()
            answer = PageAnswer(response.url, response.status, html, dict(response.headers.items()))
        if match := re.search(r'name="form_token" value="([0-9a-f]+)"', html):
            self.token = match[1]
        return answer


class Served(NamedTuple):
    """A worker that serves pages, its folder and its address."""

    server: PageServer
    worker: Worker
    plan: Plan
    data_dir: Path
    url: str
    stop: Callable[[], None]

    def browser(self) -> Browser:
        """Return a new browser without cookies."""
        return Browser(self.url)


@pytest.fixture
def serve(tmp_path):
    """Return what serves the pages of a worker with these settings and connectors."""
    with ExitStack() as at_exit:

        def serve(connectors=(), **settings):
            worker_settings = {
                "listeners": "http://127.0.0.1:0",
                "data.dir": str(tmp_path / "data"),
                **{name.replace("_", "."): value for name, value in settings.items()},
            }
            plan = check_plan("worker", worker_settings, [("connector", each) for each in connectors])
            running = at_exit.enter_context(ExitStack())
            assert plan.listener is not None
            broker = open_broker(plan)
            running.callback(broker.close)
            worker = Worker(plan, broker)
            server = PageServer(plan, plan.listener, worker, running)
            server.start()
            return Served(server, worker, plan, tmp_path / "data", server.url, running.close)

        yield serve


@pytest.fixture
def users_file(tmp_path):
    """A file with a viewer, an operator and an admin, each with the same password."""
    path = tmp_path / "users"
    hashed = hash_password(PASSWORD)
    accounts = [
        Account(User(name, role), "password", hashed)
        for name, role in (("vera", Role.VIEWER), ("otto", Role.OPERATOR), ("anna", Role.ADMIN))
    ]
    path.write_text("".join(account.line() + "\n" for account in accounts))
    path.chmod(0o600)
    return path
