"""Commands at real VOLTTRON platforms, from a topic to the point, the bus and MongoDB; counted there."""

from __future__ import annotations

import json
import random
import time
import uuid
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import pymongo
import pytest

from tieline.api import Schema, SourceRecord
from tieline.broker.records import ProducerRecord, Unit
from tieline.cli.command_context import WorkerCommandContext
from tieline.cli.connection import BrokerOptions, open_session
from tieline.config.plan import check_plan
from tieline.runtime.worker.factory import open_broker
from tieline.testing.worker_process import WorkerProcess
from tieline_connectors.command.audit.verification import verify_file
from tieline_connectors.command.model.command import TERMINAL
from tieline_lab.volttron import VolttronPlatform, why_not

pytestmark = [pytest.mark.volttron, pytest.mark.mongo]

SET_POINT = "campus/building/device1/ZoneTemperatureSetPoint"
OVERRIDDEN = "devices/campus/building/device3"
POLICY = """
version: 1
rules:
  - {issuers: boss, points: campus/building/*/ZoneTemperatureSetPoint, type: float, min: 40, max: 95}
  - issuers: boss
    points: [campus/building/*/DamperPosition, campus/building/*/Reading]
    type: int
    min: 0
    max: 100
"""
HOMES = ["local", pytest.param("kafka", marks=pytest.mark.kafka)]


def new_command(value: Any = None, point: str = SET_POINT, **fields: Any) -> dict[str, Any]:
    now = time.time_ns() // 1000
    empty = ("correlation_id", "not_before", "reason", "priority", "hold_ms", "tolerance", "signature")
    return {
        **dict.fromkeys(empty),
        "command_id": str(uuid.uuid4()),
        "issuer": "boss",
        "issued_at": now,
        "expires_at": now + 60_000_000,
        "action": "SET",
        "writes": [{"point": point, "value": value}],
        "dry_run": False,
        **fields,
    }


def give_back(platform: VolttronPlatform) -> None:
    """Restore the set point, also for later users of the platform."""
    with platform.connect() as observer:
        observer.call("platform.driver", "revert_point", *SET_POINT.rsplit("/", 1))


class Plant:
    """A platform, and a worker with a bus source, a Mongo sink and a command sink."""

    def __init__(self, folder: Path, platform: VolttronPlatform, home: dict[str, str], uri: str = "") -> None:
        self.folder, self.platform, self.uri = folder, platform, uri
        self.own = uuid.uuid4().hex[:8]
        self.topic, self.results_topic = f"commands-{self.own}", f"results-{self.own}"
        self._seen: list[dict[str, Any]] = []
        give_back(platform)
        self._before = len(platform.writes())
        folder.mkdir(exist_ok=True)
        (folder / "policy.yaml").write_text(POLICY)
        connectors = [self._sink()]
        if uri:
            connectors += self._to_mongo()
        self.worker = WorkerProcess(folder / "worker", home, connectors)
        plan = check_plan("test", {**home, "data.dir": str(folder / "worker" / "data")}, [])
        with closing(open_broker(plan)) as broker:
            broker.create_topic(self.topic, partitions=1)

    def __enter__(self) -> Plant:
        self.worker.start()
        self.worker.wait_for("partitions assigned", 60, count=2 if self.uri else 1)
        if self.uri:
            self.worker.wait_for("subscribed", 60)
        self._ends = WorkerCommandContext().topics(self.folder / "worker" / "worker.json")
        self._topics = self._ends.__enter__()
        self._reader = self._topics.reader(self.results_topic, since=0)
        return self

    def __exit__(self, *error: Any) -> None:
        self._ends.__exit__(*error)
        if self.worker.running:
            assert self.worker.stop() == 0
        assert verify_file(self.folder / "audit.log") is None

    def send(self, *values: dict[str, Any]) -> None:
        schema = Schema.named("command.Command")
        self._topics.send([SourceRecord(self.topic, value, "d", value_schema=schema) for value in values])

    def send_bytes(self, value: bytes) -> None:
        with open_session(BrokerOptions(self.folder / "worker" / "worker.json")) as opened:
            producer = opened.broker.producer("test", {})
            producer.send(Unit([ProducerRecord(self.topic, value, b"d")]))
            while not producer.poll(1.0):
                pass
            producer.close(5.0)

    def results(self, seconds: float = 0.05) -> list[dict[str, Any]]:
        self._seen += [record.value for record in self._reader.poll(seconds)]
        return self._seen

    def end(self, command_id: str, *states: str, seconds: float = 20.0) -> dict[str, Any]:
        """The first result with one of these states (or any end)."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            for result in self.results():
                if result["command_id"] == command_id and result["state"] in (states or TERMINAL):
                    return result
        raise AssertionError([r for r in self._seen if r["command_id"] == command_id])

    def written(self) -> list[tuple[str, Any]]:
        """What reached a device since this plant began: kind and value."""
        return [(w["kind"], w["value"]) for w in self.platform.writes()[self._before :]]

    def _keys(self, identity: str) -> dict[str, str]:
        keys = self.platform.keys(identity)
        return {
            "volttron.address": self.platform.address,
            "volttron.identity": identity,
            "volttron.secretkey": keys["secretkey"],
            "volttron.serverkey": keys["serverkey"],
            "platform.name": "lab",
        }

    def _sink(self) -> dict[str, str]:
        return {
            "name": f"commands-{self.own}",
            "connector.class": "command",
            "topics": self.topic,
            "policy.file": str(self.folder / "policy.yaml"),
            "audit.file": str(self.folder / "audit.log"),
            "results.topic": self.results_topic,
            "rpc.timeout.ms": "2000",
            "claim.ms": "3000",
            "consumer.override.session.timeout.ms": "6000",
            **self._keys("tieline.command"),
        }

    def _to_mongo(self) -> list[dict[str, str]]:
        source = {"name": f"bus-{self.own}", "connector.class": "volttron_bus", "topic": f"bus-{self.own}"}
        sink = {"name": f"mongo-{self.own}", "connector.class": "mongo", "topics": f"bus-{self.own}"}
        where = {"connection.uri": self.uri, "database": f"t_{self.own}", "collection": "c"}
        return [source | self._keys("tieline"), sink | where | {"layout": "cloudagent"}]


def settings(request: Any, home: str) -> dict[str, str]:
    return {} if home == "local" else {"bootstrap.servers": request.getfixturevalue("kafka_bootstrap")}


@pytest.fixture(scope="module", params=HOMES)
def plant(request, tmp_path_factory, volttron_platform, mongo_uri):
    home = settings(request, request.param)
    with Plant(tmp_path_factory.mktemp("plant"), volttron_platform, home, mongo_uri) as plant:
        yield plant


@pytest.fixture(scope="module", autouse=True)
def as_it_was(volttron_platform):
    yield
    give_back(volttron_platform)


@pytest.fixture
def platform(tmp_path):
    """One of our own, to be stopped."""
    if reason := why_not():
        pytest.skip(reason)
    with VolttronPlatform(tmp_path / "platform") as platform:
        yield platform


def test_a_point_is_set_seen_on_the_bus_and_in_mongodb_and_reverted(plant):
    before = len(plant.written())
    command = new_command(76.5, correlation_id="c1")
    back = new_command(action="REVERT")
    client: pymongo.MongoClient[dict[str, Any]]
    with plant.platform.connect() as observer, pymongo.MongoClient(plant.uri) as client:
        observer.subscribe("devices/campus/building/device1/all")
        stored: Any = client[f"t_{plant.own}"]["c"]

        def seen(value):
            while (message := observer.receive(10)) is not None:
                if message.message[0]["ZoneTemperatureSetPoint"] == value:
                    return True
            return False

        plant.send(command)
        result = plant.end(command["command_id"])
        assert (result["state"], result["correlation_id"]) == ("SUCCEEDED", "c1")
        assert result["writes"][0] | {"previous": 72.0, "actual": 76.5} == result["writes"][0]
        assert seen(76.5)
        plant.send(back)
        assert plant.end(back["command_id"])["state"] == "SUCCEEDED"
        assert seen(72.0)
        deadline = time.monotonic() + 20
        while not stored.find_one({"message.0.ZoneTemperatureSetPoint": 76.5}):
            assert time.monotonic() < deadline
    assert plant.written()[before:] == [("set", 76.5), ("revert", 72.0)]


def test_a_hold_is_reverted_automatically(plant):
    before = len(plant.written())
    command = new_command(77.5, hold_ms=700)
    plant.send(command)
    assert plant.end(command["command_id"])["state"] == "SUCCEEDED"
    plant.end(command["command_id"], "HOLD_ENDED")
    assert plant.written()[before:] == [("set", 77.5), ("revert", 72.0)]


def test_a_forbidden_command_is_answered_and_reaches_no_device(plant):
    now = time.time_ns() // 1000
    good = new_command(50.0)
    wrong = {
        "EXPIRED": new_command(51.0, expires_at=now - 1),
        "MAX_AGE": new_command(51.0, issued_at=now - 3_600_000_000, expires_at=now + 60_000_000),
        "NOT_ALLOWED": new_command(51.0, issuer="somebody"),
        "POLICY_MAX": new_command(95.5),
        "POLICY_TYPE": new_command("51"),
        "POLICY_PRIORITY": new_command(51.0, priority=7),
        "MALFORMED": new_command(51.0, writes=[]),
        "CLOCK_SKEW": new_command(51.0, issued_at=now + 3_600_000_000, expires_at=now + 7_200_000_000),
    }
    before = len(plant.written())
    plant.send(good)
    first = plant.end(good["command_id"])
    plant.send(*wrong.values(), good, good | {"reason": "another"})
    plant.send_bytes(b"\x00\x00\x00\x00\xff no such schema")
    plant.send_bytes(b"\x80 no Avro")
    last = new_command(52.0)
    plant.send(last)
    assert plant.end(last["command_id"])["state"] == "SUCCEEDED"
    assert {
        plant.end(command["command_id"])["reason_code"]: command["command_id"] for command in wrong.values()
    } == {code: command["command_id"] for code, command in wrong.items()}
    results = plant.results()
    again = [r for r in results if r["command_id"] == good["command_id"] and r["state"] in TERMINAL]
    assert again[:2] == [first, first]
    assert [r["reason_code"] for r in again[2:]] == ["CONFLICT"]
    raw = [bytes(r["raw"]) for r in results if r["raw"] is not None]
    assert raw == [b"\x00\x00\x00\x00\xff no such schema", b"\x80 no Avro"]
    assert plant.written()[before:] == [("set", 50.0), ("set", 52.0)]


def test_a_write_that_the_driver_refuses_is_failed_with_the_reason(plant):
    before = len(plant.written())
    read_only = new_command(5, "campus/building/device2/Reading")
    plant.send(read_only)
    result = plant.end(read_only["command_id"])
    assert (result["state"], result["reason_code"]) == ("FAILED", "DEVICE_REFUSED")
    assert "read-only" in result["reason"].lower()
    with plant.platform.connect() as observer:
        observer.call("platform.driver", "set_override_on", OVERRIDDEN, 0.0, False)
        try:
            overridden = new_command(5, "campus/building/device3/DamperPosition")
            plant.send(overridden)
            result = plant.end(overridden["command_id"])
        finally:
            observer.call("platform.driver", "set_override_off", OVERRIDDEN)
    assert (result["state"], result["reason_code"]) == ("FAILED", "DEVICE_REFUSED")
    assert "overrid" in result["reason"].lower()
    assert plant.written()[before:] == []


@pytest.mark.parametrize("home", HOMES)
def test_an_unavailable_platform_is_awaited_and_no_expired_command_is_written(
    request, tmp_path, platform, home
):
    with Plant(tmp_path / "plant", platform, settings(request, home)) as plant:
        first = new_command(60.0)
        plant.send(first)
        plant.end(first["command_id"])
        platform.stop()
        now = time.time_ns() // 1000
        short, long = new_command(61.0, expires_at=now + 2_000_000), new_command(62.0)
        plant.send(short, long)
        assert plant.end(short["command_id"])["state"] == "EXPIRED"
        platform.start()
        platform.start_driver()
        end = plant.end(long["command_id"])
    assert (end["state"], end["reason_code"]) == ("SUCCEEDED", "")  # also while the driver only begins
    assert plant.written() == [("set", 60.0), ("set", 62.0)]


@pytest.mark.parametrize("home", HOMES)
def test_a_worker_that_is_killed_again_and_again_writes_nothing_twice(
    request, tmp_path, volttron_platform, home
):
    """Seeded: after how many results of a life it is killed."""
    dice, lives = random.Random(11), 4 if home == "local" else 2  # Kafka notices a death after 6 s
    plant = Plant(tmp_path / "plant", volttron_platform, settings(request, home))
    sent = [new_command(40.0 + n / 4) for n in range(lives * 30)]
    with plant:
        for life in range(lives):
            plant.send(*sent[life * 30 : life * 30 + 30])
            if life < lives - 1:
                enough = len(plant.results()) + dice.randint(3, 50)
                while len(plant.results(0.005)) < enough:
                    pass
                plant.worker.kill()
                plant.worker.start()
        ends = {command["command_id"]: plant.end(command["command_id"], seconds=60) for command in sent}
        reported = [r for r in plant.results() if r["state"] in TERMINAL]
    times = Counter(value for kind, value in plant.written() if kind == "set")
    assert max(times.values()) == 1
    for command in sent:
        state = ends[command["command_id"]]["state"]
        done = times[command["writes"][0]["value"]]
        assert state in ("SUCCEEDED", "UNKNOWN")
        assert done == 1 or state == "UNKNOWN"
    different = {(r["command_id"], json.dumps(r, default=str)) for r in reported}
    assert len(different) == len(sent)
    assert sum(ends[command["command_id"]]["state"] == "UNKNOWN" for command in sent) <= 3


def test_on_10_x_the_device_is_reserved_with_the_priority_and_another_reservation_fails_the_command(
    tmp_path, volttron10_platform
):
    platform = volttron10_platform
    platform.start_actuator()
    try:
        with Plant(tmp_path / "plant", platform, {}) as plant:
            command = new_command(73.5, priority=8)
            plant.send(command)
            assert plant.end(command["command_id"])["state"] == "SUCCEEDED"
            with platform.connect("spare1") as other:
                now = time.time()
                slot = [time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(t)) for t in (now - 1, now + 60)]
                reservation = ["campus/building/device1", *slot]
                answer = other.call(
                    "platform.actuator", "request_new_schedule", "x", "theirs", "HIGH", [reservation]
                )
                assert answer["result"] == "SUCCESS", answer
                two = new_command(74.5, priority=8)
                plant.send(two)
                result = plant.end(two["command_id"])
                other.call("platform.actuator", "request_cancel_schedule", "x", "theirs")
            assert (result["state"], result["reason_code"]) == ("FAILED", "DEVICE_REFUSED")
            assert "reserved" in result["reason"]
            three = new_command(75.5, hold_ms=500)
            plant.send(three)
            plant.end(three["command_id"], "HOLD_ENDED")
        assert plant.written() == [("set", 73.5), ("set", 75.5), ("revert", 72.0)]
    finally:
        platform.stop_actuator()
