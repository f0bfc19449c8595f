"""Two workers carry out commands on a real Kafka while both, and the broker, are stopped and killed.

Of the records, 15 % are exact duplicates and 5 % contradict an earlier command; others are forged,
misplaced or not commands. At the end nothing was executed twice, late or forged, and each command has one
terminal result. The seed decides what is sent and what fails.
"""

import base64
import json
import os
import random
import signal
import threading
import time
from collections import Counter, defaultdict
from contextlib import ExitStack, closing, suppress
from typing import Any

import confluent_kafka
import pytest

from tieline.cli.command_context import WorkerCommandContext
from tieline.config.plan import check_plan
from tieline.runtime.worker.factory import open_broker
from tieline.testing.worker_process import WorkerProcess
from tieline_connectors.command.audit.verification import verify_file
from tieline_connectors.command.model.command import TERMINAL, Defaults, sign
from tieline_connectors.command.model.parsing import from_value
from tieline_connectors.volttron_bus.testing.fake_router import FakeRouter
from tieline_lab import kafka

DEVICES = [f"site/b{n % 3}/ahu{n}" for n in range(12)]
PARTITIONS = 3
COMMANDS = 400
SESSION = 6.0
IN_FLIGHT = 1.0
"""Seconds that a write may take from the worker's last check to the device, on a busy machine."""
POLICY = """
version: 1
rules:
  - {issuers: boss, points: site/b0/**, type: float, min: 0, max: 1000000, key: plant}
  - {issuers: boss, points: site/**, type: float, min: 0, max: 1000000}
"""
KEY = b"sixteen bytes or more"
NOT_AN_END = {"CONFLICT", "WRONG_PLACE"}
"""Reasons of results for a record that uses another command's id."""


class Devices:
    """Records each write with its time. ``at_write`` is called once, in the middle of the next write."""

    def __init__(self):
        self.values = defaultdict(lambda: 1.5)
        self.writes = []
        self.at_write = None

    def set_point(self, path, point, value):
        self.writes.append((value, time.time()))
        self.values[path, point] = value
        act, self.at_write = self.at_write, None
        if act is not None:
            act()

    def get_point(self, path, point):
        return self.values[path, point]

    def revert_point(self, path, point):
        self.values.pop((path, point), None)

    @property
    def methods(self):
        names = ("set_point", "get_point", "revert_point")
        return {"platform.driver": {name: getattr(self, name) for name in names}}


class Sender:
    """Sends the campaign's records; ``sent``: id → command, ``forged``: values that must never be written."""

    def __init__(self, dice, broker, topic):
        self.dice, self.topic = dice, topic
        self.sent: dict[str, dict[str, Any]] = {}
        self.forged: set[float] = set()
        self.kinds: Counter[str] = Counter()
        self._producer = confluent_kafka.Producer(
            {
                "bootstrap.servers": broker.bootstrap,
                "enable.idempotence": True,
                "partitioner": "murmur2_random",
                "linger.ms": 0,
                "log_level": 0,
                "delivery.timeout.ms": 120_000,
                "reconnect.backoff.max.ms": 500,
            }
        )

    def send_one(self, number):
        """Send a new command, and perhaps a duplicate, a contradiction or a forgery."""
        dice = self.dice
        now = time.time_ns() // 1000
        device, value = dice.choice(DEVICES), number + 0.25
        command: dict[str, Any] = {
            "command_id": f"c{number}",
            "issuer": "boss",
            "topic": self.topic,
            "platform": "lab",
            "issued_at": now,
            "expires_at": now + int(dice.choice([2, 8, 20, 40, 60]) * 1e6),
            "action": "SET",
            "writes": [{"point": f"{device}/p{dice.randrange(2)}", "value": value}],
        }
        if dice.random() < 0.1:
            command["hold_ms"] = dice.randint(500, 5000)
        command["signature"] = sign(from_value(command, Defaults()), KEY)
        self.sent[command["command_id"]] = command
        self._send("new", device, command)
        roll = dice.random()
        earlier = dice.choice(list(self.sent.values())[-80:])
        its_device = earlier["writes"][0]["point"].rpartition("/")[0]
        if roll < 0.15:
            self._send("again", its_device, earlier)
        elif roll < 0.20:
            self._forge("contradiction", its_device, earlier, command_id=earlier["command_id"])
        elif roll < 0.23:
            self._forge("unknown issuer", device, command, command_id=f"n{number}", issuer="unknown")
        elif roll < 0.25 and device.startswith("site/b0/"):
            self._forge("with another's signature", device, command, command_id=f"s{number}")
        elif roll < 0.26:
            self.kinds["misplaced"] += 1
            self._produce(json.dumps(earlier), its_device, partition=dice.randrange(PARTITIONS))
        elif roll < 0.29:
            self.kinds["no command"] += 1
            ahead = int(time.time() * 1000) + 59 * 60_000
            self._produce(dice.choice(["{", "42", "null", "[]"]), device, timestamp=ahead)
        self._producer.poll(0)

    def flush(self):
        assert self._producer.flush(120) == 0

    def _forge(self, kind: str, key: str, command: dict[str, Any], **other: Any) -> None:
        value: float = command["writes"][0]["value"] + 500_000
        self.forged.add(value)
        self._send(kind, key, {**command, **other, "writes": [{**command["writes"][0], "value": value}]})

    def _send(self, kind, key, command):
        self.kinds[kind] += 1
        self._produce(json.dumps(command), key)

    def _produce(self, text, key, **where):
        self._producer.produce(self.topic, text, key, on_delivery=self._delivered, **where)

    @staticmethod
    def _delivered(error, _message):
        assert error is None, error


class Results:
    """The results of each command, read from their topic."""

    def __init__(self, reader):
        self.reader = reader
        self.by_command = defaultdict(list)

    def ends(self, command_id):
        """Return the different terminal results of a command; finally there is one."""
        different = {
            json.dumps(r, sort_keys=True, default=str): r
            for r in self.by_command[command_id]
            if r["state"] in TERMINAL and r["reason_code"] not in NOT_AN_END
        }
        return list(different.values())

    def wait_for_all(self, sent, seconds):
        """Wait for the end of all commands and holds; return those without one after so many seconds."""
        deadline = time.monotonic() + seconds
        open_ = holds = set(sent)
        while time.monotonic() < deadline and (open_ or holds):
            for record in self.reader.poll(0.2):
                self.by_command[record.value["command_id"]].append(record.value)
            open_ = {id_ for id_ in open_ if not self.ends(id_)}
            holds = {id_ for id_ in sent.keys() - open_ if self._holds(sent[id_])}
        return open_, holds

    def _holds(self, command):
        results = self.by_command[command["command_id"]]
        (end, *_) = self.ends(command["command_id"])
        return (
            "hold_ms" in command
            and end["state"] == "SUCCEEDED"
            and not any(r["state"] in ("HOLD_ENDED", "HOLD_SKIPPED") for r in results)
        )


class Faults:
    """Random faults of the workers and the broker. When ``run`` returns, all of them run again."""

    def __init__(self, dice, workers, broker, devices):
        self.dice, self.workers, self.broker, self.devices = dice, workers, broker, devices
        self.done: Counter[str] = Counter()

    def run(self, rounds):
        kinds = ["stop", "stop in a write", "stop all in a write", "kill", "kill in a write", "broker"]
        order = [kind for _ in range(rounds) for kind in self.dice.sample(kinds, len(kinds))]
        for kind in order:
            time.sleep(self.dice.uniform(0.3, 1.5))  # a random moment; this waits for nothing
            pause = self.dice.choice([0.5, 2.0, SESSION + 2.5])
            victim = self.dice.choice(self.workers)
            self.done[kind] += 1
            if kind == "broker":
                self.broker.kill()
                time.sleep(self.dice.choice([0.2, 3.0, SESSION + 1.0]))
                self.broker.start()
            elif kind.startswith("stop"):
                self._suspend(self.workers if "all" in kind else [victim], pause, "write" in kind)
            else:
                if "write" in kind:
                    self._at_write([victim], signal.SIGKILL)
                victim.kill()
                time.sleep(min(pause, 2.0))
                victim.start()

    def _suspend(self, victims, pause, in_a_write):
        if in_a_write:
            self._at_write(victims, signal.SIGSTOP)
        for victim in victims:
            os.kill(victim.pid, signal.SIGSTOP)
        time.sleep(pause)
        for victim in victims:
            os.kill(victim.pid, signal.SIGCONT)

    def _at_write(self, victims, number, seconds=5.0):
        """Send the signal from inside a write, but at least after so many seconds without one."""
        happened = threading.Event()

        def act():
            for victim in victims:
                with suppress(ProcessLookupError):
                    os.kill(victim.pid, number)
            happened.set()

        self.devices.at_write = act
        if happened.wait(seconds):
            self.done["in a write, really"] += 1
        self.devices.at_write = None


@pytest.fixture
def broker(tmp_path):
    if reason := kafka.why_not():
        pytest.skip(reason)
    with kafka.KafkaServer(tmp_path / "kafka") as server:
        yield server


def worker(folder, name, broker, bus):
    sink = {
        "name": "commands",
        "connector.class": "command",
        "topics": "commands",
        "value.converter": "json",
        "volttron.address": bus.address,
        "volttron.identity": name,
        "platform.name": "lab",
        "policy.file": str(folder / "policy.yaml"),
        "audit.file": str(folder / f"{name}.log"),
        "results.topic": "results",
        "signature.keys": f"plant:{base64.b64encode(KEY).decode()}",
        "rpc.timeout.ms": "2000",
        "claim.ms": "2500",
        "consumer.override.session.timeout.ms": str(int(SESSION * 1000)),
        "errors.retry.delay.max.ms": "1000",
    }
    return WorkerProcess(folder / name, worker_settings(broker, folder / name), [sink])


def worker_settings(broker, folder):
    return {"bootstrap.servers": broker.bootstrap, "data.dir": str(folder / "data")}


@pytest.mark.kafka
@pytest.mark.timeout(600)
@pytest.mark.seeds(1)
def test_a_campaign_of_faults_executes_nothing_twice_late_or_forged_and_every_command_ends(
    seed, tmp_path, broker
):
    dice, devices = random.Random(seed), Devices()
    (tmp_path / "policy.yaml").write_text(POLICY)
    with closing(open_broker(check_plan("test", worker_settings(broker, tmp_path), []))) as opened:
        opened.create_topic("commands", partitions=PARTITIONS)
    sender = Sender(dice, broker, "commands")
    with FakeRouter(rpc=devices.methods) as bus, ExitStack() as running:
        workers = [running.enter_context(worker(tmp_path, name, broker, bus)) for name in ("one", "two")]
        workers[0].wait_for("partitions assigned", 60)
        faults = Faults(random.Random(seed), workers, broker, devices)
        chaos = threading.Thread(target=faults.run, args=(2,))
        chaos.start()
        number = 0
        while chaos.is_alive() or number < COMMANDS:
            if number < COMMANDS * 2:
                sender.send_one(number)
                number += 1
            time.sleep(0.06)
        chaos.join()
        sender.flush()
        topics = running.enter_context(WorkerCommandContext().topics(tmp_path / "one" / "worker.json"))
        results = Results(topics.reader("results", since=0))
        without_end, unpaid = results.wait_for_all(sender.sent, 120)
        for each in workers:
            each.wait_for("progress")  # the last one to be killed may still be starting
        assert [each.stop() for each in workers] == [0, 0]
        assert bus.dropped == 0
    times = Counter(value for value, _ in devices.writes)
    written = dict(reversed(devices.writes))
    by_value = {c["writes"][0]["value"]: c for c in sender.sent.values()}
    late = [
        (c["command_id"], written[value] - c["expires_at"] / 1e6)
        for value, c in by_value.items()
        if value in written and written[value] > c["expires_at"] / 1e6 + IN_FLIGHT
    ]
    ends = {id_: results.ends(id_) for id_ in sender.sent}
    states = Counter(end["state"] for (end, *_) in filter(None, ends.values()))
    print(f"seed {seed}: sent {dict(sender.kinds)}; faults {dict(faults.done)}; ends {dict(states)}")
    assert [value for value, count in times.items() if count > 1] == [], "executed twice"
    assert late == [], "executed late"
    assert times.keys() - by_value.keys() == set(), "forged"
    assert without_end == set(), "without an end"
    assert unpaid == set(), "holds that were never reverted"
    assert {id_: results for id_, results in ends.items() if len(results) != 1} == {}, "more than one end"
    for id_, (end,) in ends.items():
        value = sender.sent[id_]["writes"][0]["value"]
        assert end["state"] != "SUCCEEDED" or value in written, (id_, end)
        assert end["state"] not in ("EXPIRED", "REJECTED", "FAILED") or value not in written, (id_, end)
    assert states["SUCCEEDED"] > COMMANDS / 4
    assert faults.done["in a write, really"] > 0, "a fault that never happened shows nothing"
    for name in ("one", "two"):
        assert verify_file(tmp_path / f"{name}.log") is None
