"""A real worker is backed up under load and killed; its disk is lost, and restored. Everything is counted."""

import json
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing, contextmanager
from typing import Any

import apsw
import pytest

from tieline.api import Encoded
from tieline.broker.local.log import LocalLog
from tieline.broker.records import ConsumedRecord, ProducerRecord
from tieline.converters.avro import AvroConverter, AvroConverterConfig
from tieline.registry.schema_topic import TopicSchemaStore
from tieline.testing.worker_process import WorkerProcess
from tieline_connectors.command.audit.verification import verify_file
from tieline_connectors.volttron_bus.testing.fake_router import FakeRouter

DEVICES = 20
POLICY = """
version: 1
rules:
  - issuers: boss
    points: campus/b1/*/*
    type: float
    min: 0
    max: 1000000
"""


def tieline(*arguments, status=0):
    """Run the program; return what it printed."""
    command = [sys.executable, "-m", "tieline.cli.main", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == status, done.stderr + done.stdout
    return done.stdout if status == 0 else done.stderr


@contextmanager
def repeated(action, seconds):
    """Call ``action`` in a thread, with a pause after each call."""
    stop = threading.Event()

    def run():
        while not stop.is_set():
            action()
            stop.wait(seconds)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


class Publisher:
    """Publishes numbered readings, each of a time of its own."""

    def __init__(self, bus):
        self.bus, self.published = bus, 0

    def publish(self):
        for _ in range(20):
            number = self.published
            headers = {"TimeStamp": f"2026-03-01T00:{number // 60000:02}:00.{number % 60000:06d}+00:00"}
            topic = f"devices/campus/b/d{number % 7}/all"
            self.bus.publish(topic, headers, [{"n": number}, {"n": {"units": "1"}}])
            self.published += 1


def stored_numbers(data):
    with closing(apsw.Connection(str(data / "history.db"))) as connection:
        return Counter(int(value) for (value,) in connection.execute("SELECT value FROM reading"))


def test_every_record_acknowledged_before_a_backup_under_load_is_delivered_after_the_restore(tmp_path):
    data, backup = tmp_path / "data", tmp_path / "backup"
    with FakeRouter() as bus:
        connectors = [
            {"name": "bus", "connector.class": "volttron_bus", "platform.name": "lab", "bus.prefixes": "all",
             "topic": "readings", "volttron.address": bus.address},
            {"name": "history", "connector.class": "history", "topics": "readings", "retention.ms": "-1"},
        ]  # fmt: skip
        worker = WorkerProcess(tmp_path, {}, connectors)
        file = tmp_path / "worker.json"
        with worker:
            worker.wait_for("subscribed")
            publisher = Publisher(bus)
            with repeated(publisher.publish, 0.01):
                ledger = worker.wait_for_ledger(lambda line: line["history"].get("delivered", 0) > 1000)
                acknowledged = ledger["bus"]["counters"]["spooled"]
                report = json.loads(tieline("backup", backup, "--worker", file, "--rate", "4", "--json"))
                worker.wait_for_ledger(lambda line: line["bus"]["counters"]["spooled"] > acknowledged + 500)
            worker.kill()
        assert report["damaged"] == {}
        shutil.rmtree(data)
        tieline("restore", backup, "--worker", file)
        with worker:
            worker.wait_for_ledger(
                lambda line: (
                    line["bus"].get("spool_records") == 0
                    and line["history"].get("lag") == 0
                    and line["history"].get("in_flight") == 0
                )
            )
            assert worker.stop() == 0
    numbers = stored_numbers(data)
    assert [number for number in range(acknowledged) if numbers[number] != 1] == []
    assert [number for number, times in numbers.items() if times != 1] == []


class Plant:
    """Devices that count every write, and a worker with a command sink on a local log."""

    def __init__(self, folder, bus):
        self.folder, self.data = folder, folder / "data"
        self.sent = 0
        (folder / "policy.yaml").write_text(POLICY)
        sink = {
            "name": "commands",
            "connector.class": "command",
            "topics": "commands",
            "volttron.address": bus.address,
            "platform.name": "lab",
            "policy.file": str(folder / "policy.yaml"),
            "audit.file": str(self.data / "audit.log"),
            "value.converter": "json",
            "max.clock.skew.ms": "1000",
        }
        with closing(LocalLog.open(self.data)) as log:
            for topic in ("commands", "command-results"):
                log.create_topic(topic)
        self.worker = WorkerProcess(folder, {}, [sink])

    def command(self, number):
        now = time.time_ns() // 1000
        point = f"campus/b1/d{number % DEVICES}/p"
        return {
            "command_id": f"c{number}",
            "issuer": "boss",
            "issued_at": now,
            "expires_at": now + 200_000_000,
            "action": "SET",
            "writes": [{"point": point, "value": float(number)}],
            # some of them wait for seconds, so that every backup finds waiting ones
            **({"not_before": now + 4_000_000} if number % 5 == 0 else {}),
        }

    def send(self, log, *commands):
        log.store.append([ProducerRecord("commands", json.dumps(command).encode()) for command in commands])

    def send_next(self, log, sent):
        command = self.command(len(sent))
        self.send(log, command)
        sent.append(command)


def results(log):
    """Return the states of each command's results in a log, in order."""
    found: dict[str, list[tuple[str, str]]] = {}
    converter = AvroConverter(AvroConverterConfig.parse({}), is_key=False, schemas=TopicSchemaStore(log))
    records: list[ConsumedRecord] = []
    log.read("command-results", records.append)
    for datum in converter.deserialize([Encoded(record.topic, record.value) for record in records]):
        value = datum.data
        found.setdefault(value["command_id"], []).append((value["state"], value["reason_code"]))
    return found


def test_no_command_is_executed_twice_after_a_backup_under_load_is_restored(tmp_path):
    writes: Counter[float] = Counter()
    values: dict[str, float] = {}

    def write(path, point, value):
        writes[value] += 1
        values[path] = value
        time.sleep(0.01)  # a driver takes its time
        return value

    driver: dict[str, Callable[..., Any]] = {
        "set_point": write,
        "get_point": lambda path, _: values.get(path, 1.0),
    }
    with FakeRouter(rpc={"platform.driver": driver}) as bus:
        plant = Plant(tmp_path, bus)
        worker, data, backup = plant.worker, plant.data, tmp_path / "backup"
        file = tmp_path / "worker.json"
        sent: list[dict[str, Any]] = []
        with worker, closing(LocalLog.open(data, owner=False)) as log:
            worker.wait_for("partitions assigned")
            with repeated(lambda: plant.send_next(log, sent), 0.03):
                until = time.monotonic() + 60
                while sum(writes.values()) < 60 and time.monotonic() < until:
                    time.sleep(0.01)
                before = set(writes)
                tieline("backup", backup, "--worker", file, "--rate", "1")
                executed_at_backup = sum(writes.values())
                while sum(writes.values()) < executed_at_backup + 60 and time.monotonic() < until:
                    time.sleep(0.01)
            worker.kill()
        assert len(before) >= 60
        executed = Counter(writes)
        assert set(executed.values()) == {1}
        shutil.move(data, tmp_path / "lost")
        tieline("restore", backup, "--worker", file)
        with worker, closing(LocalLog.open(data, owner=False)) as log:
            worker.wait_for("partitions assigned")
            plant.send(log, *sent)  # every sender tries again
            time.sleep(1.2)  # max.clock.skew.ms after the takeover
            new = plant.command(len(sent) // 5 * 5 + 6)  # one that does not wait
            plant.send(log, new)
            ends: dict[str, tuple[str, str]] = {}
            until = time.monotonic() + 60
            while time.monotonic() < until:
                ends = {name: states[-1] for name, states in results(log).items()}
                if ends.keys() >= {new["command_id"], *(command["command_id"] for command in sent)} and not (
                    {"ACCEPTED", "EXECUTING"} & {state for state, _ in ends.values()}
                ):
                    break
                time.sleep(0.1)
            assert worker.stop() == 0
    assert ends[new["command_id"]] == ("SUCCEEDED", "")
    assert writes - executed == Counter([new["writes"][0]["value"]])
    assert set(writes.values()) == {1}
    assert verify_file(data / "audit.log") is None
    assert {ends[f"c{int(number)}"] for number in before} == {("SUCCEEDED", "")}
    assert ("UNKNOWN", "RESTORED") in ends.values()
    assert ("REJECTED", "FORGOTTEN") in ends.values()


@pytest.mark.parametrize("killed", [False, True])
def test_a_stopped_or_killed_worker_is_backed_up_as_it_is(tmp_path, killed):
    with FakeRouter(rpc={"platform.driver": {"get_point": lambda *_: 1.0}}) as bus:
        plant = Plant(tmp_path, bus)
        with plant.worker:
            plant.worker.wait_for("partitions assigned")
            refused = tieline("restore", tmp_path / "nowhere", "--worker", tmp_path / "worker.json", status=2)
            plant.worker.kill() if killed else plant.worker.stop()
        assert "is not a complete backup" in refused
        tieline("backup", tmp_path / "backup", "--worker", tmp_path / "worker.json")
        again = tieline("backup", tmp_path / "backup", "--worker", tmp_path / "worker.json", status=2)
        assert "give a new folder for each backup" in again
        refused = tieline("restore", tmp_path / "backup", "--worker", tmp_path / "worker.json", status=2)
        assert "add --replace" in refused
        with plant.worker:
            plant.worker.wait_for("partitions assigned")
            command = ("restore", tmp_path / "backup", "--worker", tmp_path / "worker.json", "--replace")
            assert f"process {plant.worker.pid}" in tieline(*command, status=2)
            assert plant.worker.stop() == 0
        assert "the former folder is" in tieline(*command)
        with plant.worker:
            plant.worker.wait_for("partitions assigned")
            assert plant.worker.stop() == 0
