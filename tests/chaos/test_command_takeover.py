"""Worker processes that are suspended or killed exactly between STARTED and the end of a command.

A ``sitecustomize`` in the worker's interpreter does it: after STARTED is durable and before the write, or
right after the write. The product is not changed for it.
"""

import json
import os
import random
import signal
import time
import uuid
from contextlib import ExitStack, closing

import pytest

from tieline.api import ID_HEADER, Schema, SourceRecord
from tieline.broker.records import ProducerRecord, Unit
from tieline.cli.command_context import WorkerCommandContext
from tieline.cli.connection import BrokerOptions, open_session
from tieline.config.plan import check_plan
from tieline.runtime.worker.factory import open_broker
from tieline.testing.worker_process import WorkerProcess
from tieline_connectors.command.model.command import TERMINAL
from tieline_connectors.volttron_bus.testing.fake_router import FakeRouter

CUSTOMIZE = """
import os, signal, threading
from pathlib import Path
from tieline_connectors.command.execution import writer

real = writer.write

def write(*arguments):
    flag = Path(os.environ["TIELINE_TEST_FLAG"])
    try:
        when, number = flag.read_text().split()
        flag.unlink()
        # To this thread: after a signal to another one, this thread would run for a while.
        end = lambda: signal.pthread_kill(threading.get_ident(), int(number))
    except FileNotFoundError:
        return real(*arguments)
    if when == "before":
        end()
    calls = real(*arguments)
    if when == "after":
        end()
    return calls

writer.write = write
"""
POLICY = "{version: 1, rules: [{issuers: boss, points: site/ahu/p, type: float, min: 0, max: 100}]}"


class Device:
    def __init__(self):
        self.value, self.writes = 1.5, []

    def set_point(self, path, point, value):
        self.writes.append(value)
        self.value = value

    def get_point(self, path, point):
        return self.value

    def revert_point(self, path, point):
        self.writes.append("revert")
        self.value = 1.5


class Stand:
    """A device, a topic of commands, and workers of one group."""

    def __init__(self, folder, backend, bus):
        self.folder, self.backend, self.bus = folder, backend, bus
        self.own = uuid.uuid4().hex[:8]
        self.topic, self.results_topic = f"commands-{self.own}", f"results-{self.own}"
        (folder / "policy.yaml").write_text(POLICY)
        self.flag = folder / "flag"
        self.more = {}
        plan = check_plan("test", {**backend, "data.dir": str(folder / "one" / "data")}, [])
        with closing(open_broker(plan)) as broker:
            broker.create_topic(self.topic, partitions=1)

    def worker(self, name):
        sink = {
            "name": f"commands-{self.own}",
            "connector.class": "command",
            "topics": self.topic,
            "volttron.address": self.bus.address,
            "volttron.identity": name,
            "platform.name": "lab",
            "policy.file": str(self.folder / "policy.yaml"),
            "audit.file": str(self.folder / f"{name}.log"),
            "results.topic": self.results_topic,
            "claim.ms": "3000",
            "consumer.override.session.timeout.ms": "6000",
            **self.more,
        }
        return WorkerProcess(self.folder / name, self.backend, [sink])

    def open(self):
        return WorkerCommandContext().topics(self.folder / "one" / "worker.json")


def command(value, **more):
    now = time.time_ns() // 1000
    empty = ("correlation_id", "not_before", "reason", "priority", "hold_ms", "tolerance", "signature")
    return dict.fromkeys(empty) | {
        "command_id": str(uuid.uuid4()),
        "issuer": "boss",
        "issued_at": now,
        "expires_at": now + 60_000_000,
        "action": "SET",
        "writes": [{"point": "site/ahu/p", "value": value}],
        "dry_run": False,
        **more,
    }


class Line:
    """Sends commands and follows their results."""

    def __init__(self, topics, stand):
        self.topics, self.topic = topics, stand.topic
        self.reader = topics.reader(stand.results_topic, since=0)
        self.seen = []

    def send(self, value, **more):
        one = command(value, **more)
        schema = Schema.named("command.Command")
        self.topics.send([SourceRecord(self.topic, one, "site/ahu", value_schema=schema)])
        return one["command_id"]

    def ends(self, command_id):
        self.seen += [record.value for record in self.reader.poll(0.05)]
        return [r for r in self.seen if r["command_id"] == command_id and r["state"] in TERMINAL]

    def end(self, command_id, seconds=40):
        deadline = time.monotonic() + seconds
        while not (found := self.ends(command_id)):
            assert time.monotonic() < deadline, self.seen
        return found[0]


@pytest.fixture(params=["local", pytest.param("kafka", marks=pytest.mark.kafka)])
def backend(request):
    """A worker's settings of its broker."""
    if request.param == "local":
        return {}
    return {"bootstrap.servers": request.getfixturevalue("kafka_bootstrap")}


@pytest.fixture
def device():
    return Device()


@pytest.fixture
def stand(tmp_path, backend, device, monkeypatch):
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(CUSTOMIZE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    monkeypatch.setenv("TIELINE_TEST_FLAG", str(tmp_path / "flag"))
    methods = {name: getattr(device, name) for name in ("set_point", "get_point", "revert_point")}
    with FakeRouter(rpc={"platform.driver": methods}) as bus:
        yield Stand(tmp_path, backend, bus)
        assert bus.dropped == 0


def stopped(pid):
    with open(f"/proc/{pid}/stat") as stat:
        return stat.read().rpartition(")")[2].split()[0] == "T"


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_worker_killed_between_started_and_the_end_leaves_a_result_that_the_device_proves(
    stand, device, when
):
    with stand.worker("one") as worker, stand.open() as topics:
        worker.wait_for("partitions assigned", 60)
        line = Line(topics, stand)
        stand.flag.write_text(f"{when} {int(signal.SIGKILL)}")
        one = line.send(20.0)
        assert worker.wait() == -signal.SIGKILL
        worker.start()
        result = line.end(one)
        two = line.send(21.0)
        assert line.end(two)["state"] == "SUCCEEDED"
        assert line.ends(one) == [result]
        assert worker.stop() == 0
    if when == "before":
        assert (result["state"], result["reason_code"]) == ("UNKNOWN", "CRASHED")
        assert device.writes == [21.0]
    else:
        assert (result["state"], result["reason_code"]) == ("SUCCEEDED", "PROVED_BY_READ_BACK")
        assert device.writes == [20.0, 21.0]


@pytest.mark.parametrize("backend", [pytest.param("kafka", marks=pytest.mark.kafka)], indirect=True)
def test_a_worker_suspended_between_started_and_the_write_does_not_write_after_a_takeover(stand, device):
    with stand.worker("one") as first, stand.open() as topics, ExitStack() as then:
        first.wait_for("partitions assigned", 60)
        second = then.enter_context(stand.worker("two"))
        line = Line(topics, stand)
        assert line.end(line.send(10.0))["state"] == "SUCCEEDED"
        stand.flag.write_text(f"before {int(signal.SIGSTOP)}")
        one = line.send(20.0)
        deadline = time.monotonic() + 30
        while not stopped(first.pid):
            assert time.monotonic() < deadline
        result = line.end(one)  # only the second worker can have sent it
        os.kill(first.pid, signal.SIGCONT)
        first.wait_for("partitions lost; records in flight will be read again")
        two = line.send(21.0)
        assert line.end(two)["state"] == "SUCCEEDED"
        assert line.ends(one) == [result]
        assert second.stop() == 0
        three = line.send(22.0)  # the first worker has its partition again, and works
        assert line.end(three)["state"] == "SUCCEEDED"
        assert first.stop() == 0
    assert (result["state"], result["reason_code"]) == ("UNKNOWN", "CRASHED")
    assert device.writes == [10.0, 21.0, 22.0]


def test_a_command_of_the_largest_record_size_is_rejected_and_blocks_nothing(stand, device):
    """The result and the ledger entry are larger than the command; a broker would reject such records."""
    stand.more = {"value.converter": "json", "old.issuer": "boss"}
    dice = random.Random(5)  # nothing that compresses well

    def text(length):
        return "".join(chr(dice.randrange(0x20000, 0x2A000)) for _ in range(length))

    writes = [{"point": f"site/{text(400)}/{n}", "value": text(1000)} for n in range(100)]
    large = command(0.0, command_id="large", issuer="nobody", writes=writes)
    hostile = [
        (json.dumps(large, ensure_ascii=False), ()),
        (json.dumps({"device_point": "site/ahu/p", "new_value": 1, text(100_000): 1}), ()),
        (json.dumps({"device_point": "site/ahu/p", "new_value": 1}), ((ID_HEADER, b"x" * 900_000),)),
        (json.dumps({"command_id": "odd", text(70_000): 1}), ()),
        ("{" + text(200_000), ()),
    ]
    with (
        stand.worker("one") as worker,
        open_session(BrokerOptions(stand.folder / "one" / "worker.json")) as opened,
    ):
        worker.wait_for("partitions assigned", 60)
        producer = opened.broker.producer("test", {})
        good = [(json.dumps(command(20.0, command_id="good")), ())]
        for value, headers in [*hostile, *good]:
            producer.send(Unit([ProducerRecord(stand.topic, value.encode(), headers=headers)]))
        while producer.in_flight_bytes:
            assert not any(delivery.failures for delivery in producer.poll(1.0))
        producer.close(5.0)
        with stand.open() as topics:
            line = Line(topics, stand)
            assert line.end("good")["state"] == "SUCCEEDED"
            ends = [r for r in line.seen if r["state"] in TERMINAL]
        assert worker.stop() == 0
    assert [r["reason_code"] for r in ends] == ["MALFORMED"] * 5 + [""]
    assert device.writes == [20.0]
