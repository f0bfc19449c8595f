"""The compose stack, really started: what its README says, and every service restarted under load."""

import json
import os
import re
import time
import urllib.parse
import urllib.request
from collections import Counter
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from confluent_kafka.schema_registry import SchemaRegistryClient, SchemaRegistryError
from pymongo import MongoClient

from tieline.cli.command_context import WorkerCommandContext
from tieline_lab.commands_comparison import CommandFindings, judge_commands
from tieline_lab.comparison import Message
from tieline_lab.compose import FOLDER, ComposeStack
from tieline_lab.dispatcher import Dispatcher
from tieline_lab.driver import DriverSettings
from tieline_lab.engine import Engine
from tieline_lab.exchange import Exchange
from tieline_lab.process import free_port
from tieline_lab.worker import CONNECTORS, SOURCES

pytestmark = [pytest.mark.stack, pytest.mark.timeout(900)]

SET_POINT = "campus/building/device1/ZoneTemperatureSetPoint"
LOSES = ("worker", "volttron")
"""What the bus publishes while one of these is away, nobody can have: it is at most once."""


class Ports(NamedTuple):
    kafka: int
    mongo: int
    registry: int
    page: int
    ui: int


class Window(NamedTuple):
    """Times as the bus writes them, between which the worker did not listen."""

    begin: str
    end: str


@pytest.fixture(scope="module")
def ports():
    return Ports(*(free_port() for _ in Ports._fields))


@pytest.fixture(scope="module")
def stack(ports):
    settings = {f"{name.upper()}_PORT": str(port) for name, port in ports._asdict().items()}
    with Engine() as engine:
        stack = ComposeStack(
            engine, f"tieline-test-{os.getpid()}", settings, [Path(__file__).with_name("compose.test.yaml")]
        )
        try:
            with stack:
                yield stack
        finally:
            stack.compose("down", "--volumes")


@pytest.fixture(scope="module")
def listening(stack):
    """Since when the worker listens to the bus."""
    until(lambda: subscriptions(stack) >= len(SOURCES), "the worker subscribed")
    return now()


@pytest.fixture(scope="module")
def database(stack, ports):
    password = (FOLDER / "secrets" / "mongo_password").read_text().strip()
    client: MongoClient[dict[str, Any]]
    with MongoClient(f"mongodb://tieline:{password}@127.0.0.1:{ports.mongo}/?authSource=admin") as client:
        yield client["tieline"]


@pytest.fixture(scope="module")
def topics(stack, ports, tmp_path_factory):
    worker = tmp_path_factory.mktemp("stack") / "worker.yaml"
    worker.write_text(f"bootstrap.servers: 127.0.0.1:{ports.kafka}\n")
    with WorkerCommandContext().topics(worker) as topics:
        yield topics


def test_readings_reach_mongodb(listening, database):
    until(lambda: database["readings"].estimated_document_count() >= 20, "20 readings in MongoDB")
    assert database["readings"].find_one({"device": "campus/building/device1"})


def test_a_command_is_done_once_and_its_history_can_be_read(stack, database):
    reported = stack.exec(
        "worker", "tieline", "command", "send", SET_POINT, "75", "--reason", "it is cold", "--json"
    )
    result = json.loads(reported.splitlines()[-1])
    assert result["state"] == "SUCCEEDED"
    assert [write["value"] for write in writes(stack)] == [75.0]
    of_it = {"command_id": result["command_id"]}
    until(lambda: database["commands"].count_documents(of_it) >= 2, "the command and its result in MongoDB")


def test_what_the_policy_forbids_is_not_written(stack):
    before = writes(stack)
    reported = stack.compose(
        "exec", "-T", "worker", "sh", "-c", f"tieline command send {SET_POINT} 120 || echo $?"
    )
    assert reported.split()[-1] == "10"
    assert writes(stack) == before


def test_the_registry_answers_who_has_a_password_and_nobody_else(stack, ports):
    url = f"http://127.0.0.1:{ports.registry}"
    password = (FOLDER / "secrets" / "registry_viewer_password").read_text().strip()
    with SchemaRegistryClient({"url": url, "basic.auth.user.info": f"ui:{password}"}) as client:
        assert "volttron.DeviceReading" in " ".join(client.get_subjects())
    with SchemaRegistryClient({"url": url}) as stranger, pytest.raises(SchemaRegistryError, match="401"):
        stranger.get_subjects()


def test_the_pages_are_opened_with_a_password_and_show_every_connector(stack, ports):
    url = f"http://127.0.0.1:{ports.page}/ui"
    opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
    with opener.open(f"{url}/", timeout=20) as response:
        sign_in = response.read().decode()
    assert "Sign in" in sign_in
    assert "card-bus" not in sign_in
    (token,) = set(re.findall(r'name="form_token" value="([0-9a-f]+)"', sign_in))
    password = (FOLDER / "secrets" / "page_password").read_text().strip()
    form = {"form_token": token, "name": "operator-compose", "password": password, "to": "/ui/"}
    with opener.open(f"{url}/sign-in", urllib.parse.urlencode(form).encode(), timeout=20) as response:
        overview = response.read().decode()
    assert [name for name in CONNECTORS if f'id="card-{name}"' not in overview] == []


def test_every_port_is_published_on_the_loopback_alone_and_nothing_of_ours_is_root(stack):
    for service in stack.services():
        reported = stack.inspect(service)
        published = [
            place for places in reported["NetworkSettings"]["Ports"].values() for place in places or []
        ]
        assert {place["HostIp"] for place in published} <= {"127.0.0.1"}
        assert stack.exec(service, "id", "-u").strip() != "0", service


def test_no_secret_is_in_a_log_or_in_what_the_engine_tells(stack):
    secrets = {path.read_text().strip() for path in (FOLDER / "secrets").glob("*_password")}
    assert len(secrets) == 4
    for service in stack.services():
        reported = json.dumps(stack.inspect(service))
        assert not [secret for secret in secrets if secret in reported or secret in stack.log(service)], (
            service
        )


def test_every_service_is_restarted_under_load_and_nothing_is_missing_or_doubled(
    stack, database, topics, listening
):
    dispatcher = Dispatcher(topics, DriverSettings(20).topics())
    windows = [Window("", listening)]
    for service in stack.services():
        dispatcher.send_due()
        subscribed, begin = subscriptions(stack), now()
        stack.compose("restart", service)
        if service in LOSES:
            again = subscribed + len(SOURCES)
            until(lambda again=again: subscriptions(stack) >= again, "the worker subscribed again")
            windows.append(Window(begin, now()))
        stack.wait_until_healthy()
        send_for(dispatcher, 3.0)
    exchange = Exchange(topics)
    until(lambda: all_ended(exchange), "the end of every command")
    stack.compose("stop", "volttron")
    seen = [Message(*line) for line in lines(stack, "seen.jsonl")]
    stored = until_at_rest(database)

    heard = Counter(message for message in seen if not between(message, windows))
    assert heard.total() > 20 * 10, "there was no load"
    assert [message for message in heard if stored[message] != 1] == []
    assert [message for message, times in stored.items() if times != 1] == []
    assert database["readings"].count_documents({}) == stored.total()
    found = CommandFindings(
        exchange.commands, exchange.results, writes(stack), database["commands"].count_documents({})
    )
    assert judge_commands(found).faults == []
    away = len(seen) - heard.total()
    print(f"{len(seen)} seen, {heard.total()} of them while the worker listened; {stored.total()} documents,"
          f" {heard.total()} expected and {stored.total() - heard.total()} of the {away} others;"
          f" {judge_commands(found).numbers}")  # fmt: skip


def send_for(dispatcher, seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        dispatcher.send_due()
        time.sleep(0.1)


def until(true, what, timeout=120.0):
    end = time.monotonic() + timeout
    while not true():
        assert time.monotonic() < end, f"waited {timeout:g} s for {what}"
        time.sleep(0.2)


def all_ended(exchange):
    exchange.follow()
    return not exchange.unended


def until_at_rest(database):
    """What ``cloudagent`` holds when it, and what is beside it, grows no more for five seconds."""
    before, since = None, time.monotonic()
    while time.monotonic() - since < 5.0:
        counts = [database[name].count_documents({}) for name in ("cloudagent", "readings", "commands")]
        if counts != before:
            before, since = counts, time.monotonic()
        time.sleep(0.2)
    found = database["cloudagent"].find({}, {"topic": 1, "headers": 1, "message": 1})
    return Counter(Message.of(each["topic"], each["headers"], each["message"]) for each in found)


def between(message, windows):
    return any(window.begin <= message.time <= window.end for window in windows)


def now():
    return datetime.now(timezone.utc).isoformat()


def subscriptions(stack):
    return stack.log("worker").count("subscribed")


def writes(stack):
    return lines(stack, "writes.jsonl")


def lines(stack, file):
    return [json.loads(line) for line in stack.read("volttron", f"/var/lib/lab/{file}").splitlines()]
