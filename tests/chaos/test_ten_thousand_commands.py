"""Many commands under every kind of fault: none is executed twice or late, and each has one result.

10,000 run on a clock that the test moves, and 200 on the wall clock, with threads and the fake router.
"""

import random
import time
from collections import Counter
from typing import Any

import pytest

from tieline.api import ID_HEADER, FencedError, RetriableError, SinkRecord, TopicPartition
from tieline.testing.changelogs import Changelogs
from tieline.testing.sink_context import RecordingSinkContext
from tieline_connectors.command.config import CommandSinkConfig
from tieline_connectors.command.model.command import TERMINAL
from tieline_connectors.command.sink import CommandSinkTask
from tieline_connectors.volttron_bus.testing.fake_router import FakeRouter

TOTAL = 10_000
KINDS = {
    "plain": 55,
    "both": 8,
    "held": 8,
    "revert": 4,
    "later": 4,
    "short": 6,
    "dry": 2,
    "nobody": 3,
    "too far": 2,
    "malformed": 2,
    "undecodable": 1,
    "again": 4,
    "conflict": 2,
}
FATES = {"done": 90, "refused": 2, "unavailable": 2, "lost": 2, "answer_lost": 2, "late": 1, "unread": 1}
EVENTS = {
    "nothing": 60,
    "unavailable": 4,
    "kill": 3,
    "unanswered": 8,
    "crash": 4,
    "full": 3,
    "zombie": 2,
    "back": 3,
    "arrive": 13,
}


class Dice(random.Random):
    def one_of(self, weights):
        return self.choices(list(weights), list(weights.values()))[0]


def make(plant, dice, number):
    """Return a record's value, and the id of its command."""
    kind, name, value = dice.one_of(KINDS), f"c{number}", number + 0.5
    points = dice.sample(["site/ahu/p", "site/ahu/q", *(f"site/ahu/{n}" for n in range(20))], 2)
    recent = list(plant.sent.values())[-50:]
    if kind == "undecodable":
        return b"\xff", f"t-0-{len(plant.log)}"
    if kind == "malformed":
        return {"command_id": name}, name
    if kind in ("again", "conflict") and recent:
        command = dice.choice(recent)
        return command | ({"reason": "other"} if kind == "conflict" else {}), command["command_id"]
    options = {
        "both": {"points": points},
        "held": {"hold_ms": dice.randint(1, 20_000)},
        "revert": {"action": "REVERT"},
        "later": {"not_before": plant.clock.true + dice.randint(1, 8_000_000)},
        "short": {"ttl": dice.uniform(-1, 3)},
        "dry": {"dry_run": True},
        "nobody": {"issuer": "nobody"},
    }.get(kind, {})
    value = None if kind == "revert" else -value if kind == "too far" else value
    return plant.command(name, value, **{"ttl": dice.uniform(5, 90), "points": points[:1], **options}), name


def disturb(plant, dice, life):
    """Let one event happen; return it, and the life that continues."""
    event = dice.one_of(EVENTS)
    plant.is_unavailable = event == "unavailable"
    plant.clock.set_back = 7_200_000_000 if event == "back" else 0
    kill = plant.folder / "kill"
    kill.write_text("drill") if event == "kill" else kill.unlink(missing_ok=True)
    if event == "unanswered":
        when = dice.choice(["before", "after"])
        plant.changelogs.fail(dice.randint(1, 30), RetriableError("no answer"), when, dice.randint(1, 3))
    elif event == "crash":
        plant.changelogs.fail(dice.randint(1, 60), plant.Crash(), dice.choice(["before", "after"]))
    elif event == "full":
        first = plant.audits + dice.randint(1, 20)
        last = first + dice.randint(0, 2)
        plant.audit_fate = lambda n: "full" if first <= n <= last else "done"
    elif event == "zombie":  # the former worker does not know yet that it was replaced
        zombie, life = life, plant.live(f"{len(plant.lives)}.log")
        plant.clock.pass_(dice.choice([0, 11]))
        zombie.settle()
    elif event == "arrive":
        plant.device.arrive()
    return event, life


@pytest.mark.seeds(7)
def test_10_000_commands_survive_every_fault_without_a_duplicate_a_late_write_or_a_gap(new_plant, seed):
    dice = Dice(seed)
    plant = new_plant(max_age_ms="60000", ledger_retention_ms="90000")
    plant.device.fate = lambda number, kind, value: dice.one_of(FATES)
    life = plant.live()
    expected: list[str] = []
    events: Counter[str] = Counter()
    while len(plant.log) < TOTAL:
        for _ in range(min(dice.randint(1, 60), TOTAL - len(plant.log))):
            value, name = make(plant, dice, len(plant.log))
            expected.append(name)
            plant.send(value)
        try:
            event, life = disturb(plant, dice, life)
            events[event] += 1
            for _ in range(dice.randint(1, 20)):
                if life.offset < len(plant.log) and not life.take(dice.randint(1, 50)):
                    plant.clock.pass_(0.2)
                life.settle()
                plant.clock.pass_(dice.uniform(0, 0.2))
        except (plant.Crash, FencedError):
            life = plant.live(life.audit)
    plant.is_unavailable, plant.clock.set_back = False, 0
    (plant.folder / "kill").unlink(missing_ok=True)
    plant.device.fate = lambda number, kind, value: "done"
    while True:
        try:
            life.finish()
            break
        except plant.Crash:
            life = plant.live(life.audit)
    plant.check()
    ends = plant.ends()
    assert ends.keys() == set(expected)
    states = Counter(end["state"] for (end,) in ends.values())
    assert states.total() == len(set(expected))
    assert min(states[state] for state in ("SUCCEEDED", "REJECTED", "EXPIRED", "UNKNOWN", "FAILED")) > 100
    assert all(events[event] for event in EVENTS), "a fault that never happened shows nothing"
    assert len(plant.lives) > 10


class SlowDevice:
    """Answers every fifteenth write too late, and refuses every twentieth."""

    def __init__(self):
        self.value, self.calls, self.sets = 1.5, 0, []

    def set_point(self, path, point, value):
        self.calls += 1
        if self.calls % 20 == 0:
            raise RuntimeError("no")
        self.sets.append((value, time.time()))
        self.value = value
        if self.calls % 15 == 0:
            time.sleep(0.15)  # longer than rpc.timeout.ms

    def get_point(self, path, point):
        return self.value


def test_200_commands_on_wall_time_with_restarts_of_the_worker_and_of_the_platform(tmp_path):
    at, changelogs, device = TopicPartition("commands", 0), Changelogs(), SlowDevice()
    (tmp_path / "policy.yaml").write_text(
        "{version: 1, rules: [{issuers: boss, points: site/ahu/p, type: float, min: 0, max: 1000}]}"
    )
    rpc: Any = {"platform.driver": {"set_point": device.set_point, "get_point": device.get_point}}
    sent: dict[str, tuple[float, float]] = {}

    def ends():
        results = [r.value for r in changelogs.records if r.value["state"] in TERMINAL]
        return {
            command_id: {r["state"] for r in results if r["command_id"] == command_id} for command_id in sent
        }

    with FakeRouter(rpc=rpc) as bus:
        settings = {
            "volttron.address": bus.address,
            "platform.name": "lab",
            "policy.file": str(tmp_path / "policy.yaml"),
            "audit.file": str(tmp_path / "audit.log"),
            "rpc.timeout.ms": "100",
        }
        for life in range(4):
            task = CommandSinkTask(
                RecordingSinkContext(changelogs=changelogs), CommandSinkConfig.parse(settings)
            )
            task.start()
            task.open([at])
            for number in range(life * 50, life * 50 + 50):
                now = time.time()
                expiry = now + (30 if number % 10 else -1 if number % 20 else 0.3)
                sent[f"c{number}"] = number + 0.5, expiry
                value = {
                    "command_id": f"c{number}",
                    "issuer": "boss",
                    "issued_at": int((now - 1) * 1e6),
                    "expires_at": int(expiry * 1e6),
                    "action": "SET",
                    "writes": [{"point": "site/ahu/p", "value": number + 0.5}],
                }
                headers = ((ID_HEADER, b"t-0-%d" % number),)
                task.put([SinkRecord(*at, number, value, None, headers, int(now * 1000))])
                if number % 50 == 30:
                    bus.stop()
                if number % 50 == 40:
                    bus.start()
            if life == 3:
                deadline = time.monotonic() + 60
                while not all(ends().values()):
                    assert time.monotonic() < deadline, ends()
                    time.sleep(0.02)
            task.interrupt()
            task.close([at], lost=False)
            task.stop()
        assert bus.dropped == 0
    assert {id_: states for id_, states in ends().items() if len(states) != 1} == {}
    times = Counter(value for value, _ in device.sets)
    assert max(times.values()) == 1
    written = dict(device.sets)
    for command_id, (wanted, expiry) in sent.items():
        (state,) = ends()[command_id]
        assert state != "SUCCEEDED" or wanted in written
        assert state not in ("EXPIRED", "FAILED", "REJECTED") or wanted not in written
        assert written.get(wanted, 0) < expiry + 0.3, "later than the way to the device takes"
    assert Counter(state for states in ends().values() for state in states)["SUCCEEDED"] > 150
