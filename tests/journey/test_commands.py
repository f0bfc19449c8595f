"""Commands from the keyboard to the point and back, on either backend, counted at the device."""

import base64
import json
import os
import signal
import subprocess
import sys
from typing import Any

import pytest
from pymongo import MongoClient

from tieline.testing.worker_process import WorkerProcess
from tieline_connectors.volttron_bus.testing.fake_router import FakeRouter
from tieline_lab.process import free_port

POINT = "campus/b1/ahu1/CoolingSetpoint"
POLICY = """
version: 1
rules:
  - issuers: [energy-manager, cloud]
    points: campus/b1/*/CoolingSetpoint
    actions: [SET, REVERT]
    type: float
    min: 18
    max: 26
  - issuers: operator
    points: campus/b1/*/CoolingSetpoint
    type: float
    min: 18
    max: 30
    key: operators
"""
KEY = base64.b64encode(bytes(range(32))).decode()


class Device:
    """One point; each write is kept."""

    def __init__(self):
        self.value = 21.0
        self.writes = []

    @property
    def methods(self):
        return {"set_point": self.set, "get_point": lambda *_: self.value, "revert_point": self.revert}

    def set(self, path, point, value):
        assert f"{path}/{point}" == POINT
        self.writes.append(value)
        self.value = value
        return value

    def revert(self, path, point):
        self.writes.append("revert")
        self.value = 21.0


class Plant:
    """A device behind a bus, a worker with command sinks, and the program beside it."""

    def __init__(self, backend, folder, bus, device):
        self.backend, self.folder, self.bus, self.device = backend, folder, bus, device
        (folder / "policy.yaml").write_text(POLICY)
        self.topic = f"commands-{backend.suffix}"
        self.results = f"results-{backend.suffix}"

    def connector(self, **settings):
        return {
            "name": f"commands-{self.backend.suffix}",
            "connector.class": "command",
            "topics": self.topic,
            "volttron.address": self.bus.address,
            "platform.name": "lab",
            "policy.file": str(self.folder / "policy.yaml"),
            "audit.file": str(self.folder / "audit.log"),
            "results.topic": self.results,
            "signature.keys": f"operators:{KEY}",
            **{name.replace("_", "."): value for name, value in settings.items()},
        }

    def worker(self, *connectors):
        broker = self.backend.open()
        for topic in (self.topic, self.results):  # otherwise the sink takes a moment to find new topics
            broker.create_topic(topic)
        broker.close()
        worker = {**self.backend.worker, "data.dir": str(self.backend.data)}
        return WorkerProcess(self.folder / "worker", worker, connectors or [self.connector()])

    def start(self, *arguments, **settings):
        """``tieline command …`` as a process."""
        worker = ["--worker", str(self.folder / "worker" / "worker.json"), "--results", self.results]
        command = [sys.executable, "-m", "tieline.cli.main", "command", *arguments, *worker]
        env = {**os.environ, "TIELINE_ISSUER": "energy-manager", "PYTHONUNBUFFERED": "1"}
        return subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env
        )

    def run(self, *arguments, typed=None):
        """Return the exit status, the lines of standard output, and standard error."""
        process = self.start(*arguments)
        out, beside = process.communicate(typed, timeout=60)
        return process.returncode, out.splitlines(), beside

    def tieline(self, *arguments):
        """Run any other command, and return its output."""
        command = [sys.executable, "-m", "tieline.cli.main", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout

    def send(self, *arguments):
        """``tieline command send … --json``: exit status and results."""
        status, lines, beside = self.run("send", *arguments, "--topic", self.topic, "--json")
        assert lines, beside
        return status, [json.loads(line) for line in lines]


@pytest.fixture
def plant(backend, tmp_path):
    device = Device()
    with FakeRouter(rpc={"platform.driver": device.methods}) as bus:
        yield Plant(backend, tmp_path, bus, device)
        assert bus.dropped == 0


def test_a_command_goes_from_the_keyboard_to_the_point_and_its_states_come_back(plant, tmp_path):
    key = tmp_path / "key"
    key.write_text(f"operators:{KEY}\n")
    signed = ("--issuer", "operator", "--sign-with", str(key))
    with plant.worker() as worker:
        status, results = plant.send(POINT, "22.5", "--reason", "peak", "--id", "one")
        refused, reasons = plant.send(POINT, "31")
        operator, _ = plant.send(POINT, "29", *signed)
        dry, (_, checked) = plant.send(POINT, "20", "--dry-run")
        reverted, lines, beside = plant.run("send", POINT, "--revert", "--topic", plant.topic)
        misspelt, _, reported = plant.run("send", POINT, "20", "--topic", plant.topic[:-1])
        assert worker.stop() == 0
    assert (status, [r["state"] for r in results]) == (0, ["ACCEPTED", "EXECUTING", "SUCCEEDED"])
    assert (results[-1]["writes"][0]["previous"], results[-1]["writes"][0]["actual"]) == (21.0, 22.5)
    assert (refused, [r["reason_code"] for r in reasons]) == (10, ["POLICY_MAX"])
    assert (operator, dry, checked["dry_run"], reverted) == (0, 0, True, 0)
    assert [line.split()[2] for line in lines] == ["ACCEPTED", "EXECUTING", "SUCCEEDED"]
    assert beside.startswith("sent command ")
    assert (
        misspelt,
        f"the topic {plant.topic[:-1]} does not exist; did you mean {plant.topic}" in reported,
    ) == (
        2,
        True,
    )
    assert plant.device.writes == [22.5, 29, "revert"]


def test_the_old_programs_file_and_lines_are_accepted(plant):
    old = plant.connector(old_issuer="cloud", value_converter="json")
    file = plant.folder / "commands.json"
    requests = [{"device_point": POINT, "new_value": value} for value in (23, "24.5", 99)]
    file.write_text(json.dumps({"kafka_topic": plant.topic, "device_point_list": requests}))
    typed = f"{plant.topic} {POINT} 25\n\n{plant.topic} {POINT}\n{plant.topic} {POINT} 17.5\n"
    with plant.worker(old) as worker:
        status, lines, beside = plant.run("send", "--file", str(file), "--json")
        results = [json.loads(line) for line in lines]
        of_prompt, shown, wrong = plant.run("prompt", typed=typed)
        assert worker.stop() == 0
    ends = {r["command_id"]: r["state"] for r in results}
    assert sorted(ends.values()) == ["REJECTED", "SUCCEEDED", "SUCCEEDED"]
    assert {r["issuer"] for r in results} == {"cloud"}
    assert (status, of_prompt) == (10, 10)
    assert "3 commands: 1 REJECTED, 2 SUCCEEDED" in beside
    assert [line.split()[2] for line in shown] == ["ACCEPTED", "EXECUTING", "SUCCEEDED", "REJECTED"]
    assert "a line is: kafka_topic device_point new_value" in wrong
    assert plant.device.writes == [23, 24.5, 25]


def test_a_file_of_commands_its_history_and_its_audit_beside_the_running_worker(plant, mongo_uri):
    database = f"tieline_test_{plant.backend.suffix}"
    to_mongo = {
        "name": f"history-{plant.backend.suffix}",
        "connector.class": "mongo",
        "topics": f"{plant.topic},{plant.results}",
        "connection.uri": mongo_uri,
        "database": database,
        "collection": "commands",
        "layout": "command-history",
    }
    lines = [
        {"command_id": f"c{number}", "writes": [{"point": POINT, "value": value}]}
        for number, value in enumerate((20, 30, 22))
    ]
    file = plant.folder / "commands.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with plant.worker(plant.connector(), to_mongo) as worker:
        status, results = plant.send("--file", str(file))
        worker.wait_for_ledger(lambda ledger: ledger[to_mongo["name"]]["delivered"] == 3 + 7)
        _, last, _ = plant.run("history", "--json")
        _, every, _ = plant.run("history", "--json", "--all", "--point", POINT)
        _, shown, _ = plant.run("history", "--state", "REJECTED")
        audit = plant.tieline("command", "audit", "verify", str(plant.folder / "audit.log"))
        where = ["--uri", mongo_uri, "--database", database, "--format", "json"]
        sent = plant.tieline("query", *where, "--history", "from-cloud", "--oldest")
        reported = plant.tieline("query", *where, "--history", "to-cloud")
        assert worker.stop() == 0
    with MongoClient[dict[str, Any]](mongo_uri) as client:
        client.drop_database(database)
    assert (status, len(results)) == (10, 7)
    states = {"c0": "SUCCEEDED", "c1": "REJECTED", "c2": "SUCCEEDED"}
    assert {r["command_id"]: r["state"] for r in map(json.loads, last)} == states
    assert len(every) == 7
    (line,) = shown
    assert "c1  energy-manager  REJECTED" in line
    assert "POLICY_MAX" in line
    assert "audit.log: whole, 8 lines; its head is 8:" in audit
    assert [json.loads(line)["new_value"] for line in sent.splitlines()] == [20, 30, 22]
    assert len(reported.splitlines()) == 7
    assert plant.device.writes == [20, 22]


def test_interrupting_the_wait_does_not_stop_the_command(plant):
    plant.bus.stop()
    with plant.worker() as worker:
        waiting = plant.start("send", POINT, "23", "--id", "one", "--topic", plant.topic)
        first = waiting.stdout.readline()
        waiting.send_signal(signal.SIGINT)
        _, beside = waiting.communicate(timeout=20)
        late, lines, why = plant.run("send", POINT, "24", "--wait", "3", "--topic", plant.topic)
        plant.bus.start()
        name = plant.connector()["name"]
        worker.wait_for_ledger(lambda ledger: ledger[name]["counters"].get("ended.SUCCEEDED") == 2)
        _, (end,), _ = plant.run("history", "--command", "one")
        assert worker.stop() == 0
    assert "ACCEPTED" in first
    assert (waiting.returncode, "1 command may still be executed" in beside) == (130, True)
    assert (late, [line.split()[2] for line in lines]) == (13, ["ACCEPTED"])
    assert "no result of 1 command in time" in why
    assert f"one  energy-manager  SUCCEEDED     {POINT}=23 (21.0 → 23, VERIFIED)" in end
    assert plant.device.writes == [23, 24]


def test_an_unavailable_broker_is_reported_to_the_sender(plant):
    kafka = plant.backend.name == "kafka"
    settings = {"bootstrap.servers": f"127.0.0.1:{free_port()}"} if kafka else {"data.dir": "none"}
    (plant.folder / "worker").mkdir()
    (plant.folder / "worker" / "worker.json").write_text(json.dumps(settings))
    status, _, reported = plant.run("send", POINT, "20")
    assert status == (1 if kafka else 2)
    assert ("127.0.0.1" if kafka else "holds no local log") in reported
