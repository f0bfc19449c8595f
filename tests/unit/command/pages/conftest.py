"""The pages about commands over a context that records what is sent."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tieline.api.pages import PageRequest, RunningConnector, Viewer
from tieline_connectors.command.pages.plugin import CommandPages

POLICY = """version: 1
rules:
  - {issuers: [otto, anna], points: campus/b1/*/Boiler, actions: REVERT, confirmation: true}
  - {issuers: [otto, anna], points: campus/b1/*/Boiler, type: bool, max_hold_minutes: 60}
  - {issuers: [otto, anna], points: campus/b1/*/Chiller, type: bool, confirmation: true}
  - {issuers: [otto, anna], points: campus/b1/**, type: float, min: 60, max: 85, max_hold_minutes: 60}
"""
NOW = 1_800_000_000_000_000


class Client:
    """A ``TopicClient`` that keeps what is sent."""

    def __init__(self) -> None:
        self.sent: list[Any] = []
        self.before_send = lambda records: None

    def send(self, records):
        self.before_send(records)
        self.sent += records


class Context:
    """A ``PageContext`` with one command sink."""

    def __init__(self, connectors) -> None:
        self.connectors = connectors
        self.data_dir = Path("data")
        self.client = Client()

    @contextlib.contextmanager
    def topics(self):
        yield self.client

    def render(self, template, values):
        return ""

    def ledgers(self):
        return {}

    def has_page(self, path):
        return False


class Site(NamedTuple):
    """The pages, and how a person uses them."""

    pages: CommandPages
    context: Context
    folder: Any

    def post(self, path: str, user: str = "otto", **form: str):
        """Return the answer to a form."""
        (route,) = (route for route in self.pages.routes() if (route.path, route.method) == (path, "POST"))
        return route.handler(request(user, form={"sink": "commands", **form}))

    def get(self, path: str, user: str = "otto", **query: str):
        """Return the answer to a request for a page."""
        (route,) = (route for route in self.pages.routes() if (route.path, route.method) == (path, "GET"))
        return route.handler(request(user, query=query))

    def add(self, value: Any, topic: str = "commands") -> None:
        """Let the pages read a record."""
        with self.pages.follower.book() as book:
            book.add(value, topic)

    @property
    def sent(self):
        """The values that were sent."""
        return [record.value for record in self.context.client.sent]


def request(user, *, form=None, query=None):
    return PageRequest(Viewer(user, "operator"), {}, query or {}, form or {}, "UTC")


@pytest.fixture
def site(tmp_path):
    (tmp_path / "policy.yaml").write_text(POLICY)
    settings = {
        "platform.name": "lab",
        "volttron.address": "tcp://127.0.0.1:1",
        "policy.file": str(tmp_path / "policy.yaml"),
        "audit.file": str(tmp_path / "audit.log"),
        "kill.switch.file": str(tmp_path / "kill"),
    }
    connector = RunningConnector("commands", "command", "sink", settings, ("commands",))
    context = Context([connector])
    return Site(CommandPages(context), context, tmp_path)  # type: ignore[arg-type]


def command(command_id="c1", **changes):
    now = time.time_ns() // 1000
    return {
        "command_id": command_id,
        "issuer": "otto",
        "issued_at": now,
        "action": "SET",
        "writes": [{"point": "campus/b1/ahu1/Setpoint", "value": 70.0}],
        **changes,
    }


def result(command_id="c1", state="SUCCEEDED", **changes):
    now = time.time_ns() // 1000
    writes = [{"point": "campus/b1/ahu1/Setpoint", "requested": 70.0, "outcome": "VERIFIED"}]
    return {"command_id": command_id, "state": state, "at": now, "writes": writes, **changes}
