"""The command sink at real platforms: frozen drivers, stopped actuators, reserved devices."""

import random
import signal
import time
import uuid
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from tieline.api import ID_HEADER, SinkRecord, TopicPartition
from tieline.testing.changelogs import Changelogs
from tieline.testing.sink_context import RecordingSinkContext
from tieline_connectors.command.config import CommandSinkConfig
from tieline_connectors.command.execution import platform_client
from tieline_connectors.command.sink import CommandSinkTask

pytestmark = pytest.mark.volttron

AT = TopicPartition("commands", 0)
DEVICE = "campus/building/device1"
POINT = f"{DEVICE}/ZoneTemperatureSetPoint"
POLICY = "{version: 1, rules: [{issuers: boss, points: campus/building/**, type: float, min: 0, max: 100}]}"
ENDS = ("SUCCEEDED", "FAILED", "EXPIRED", "UNKNOWN", "MISMATCH", "REJECTED")


class Sink:
    """The command sink at a platform, on a changelog in memory."""

    def __init__(self, folder, platform):
        self.folder, self.platform, self.offset = folder, platform, 0
        self.changelogs = Changelogs()
        (folder / "policy.yaml").write_text(POLICY)
        self.before = len(platform.writes())

    @contextmanager
    def running(self, **changes):
        keys = self.platform.keys("tieline.command")
        settings = {
            "volttron.address": self.platform.address,
            "volttron.identity": "tieline.command",
            "volttron.secretkey": keys["secretkey"],
            "volttron.serverkey": keys["serverkey"],
            "platform.name": "lab",
            "policy.file": str(self.folder / "policy.yaml"),
            "audit.file": str(self.folder / "audit.log"),
            "rpc.timeout.ms": "1500",
        }
        context = RecordingSinkContext(changelogs=self.changelogs)
        task = CommandSinkTask(context, CommandSinkConfig.parse(settings | changes))
        self.task: Any = task
        task.start()
        task.open([AT])
        try:
            yield self
        finally:
            task.interrupt()
            task.close([AT], lost=False)
            task.stop()

    def send(self, value, ttl=60.0, **fields):
        now = time.time_ns() // 1000
        command = {
            "command_id": str(uuid.uuid4()),
            "issuer": "boss",
            "issued_at": now,
            "expires_at": now + int(ttl * 1_000_000),
            "action": "SET",
            "writes": [{"point": POINT, "value": value}],
            **fields,
        }
        header = (ID_HEADER, b"topic-%d" % self.offset)
        self.task.put([SinkRecord(*AT, self.offset, command, None, (header,), now // 1000)])
        self.offset += 1
        return command

    def end(self, command, *states, seconds=30.0):
        mine: list[dict[str, Any]] = []
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            results = [r.value for r in self.changelogs.records if r.topic == "command-results"]
            mine = [r for r in results if r["command_id"] == command["command_id"]]
            for result in mine:
                if result["state"] in (states or ENDS):
                    return result
            time.sleep(0.01)
        raise AssertionError([(r["state"], r["reason"]) for r in mine])

    def written(self):
        return [(w["kind"], w["value"]) for w in self.platform.writes()[self.before :]]


@pytest.fixture(params=["2", "10"])
def platform(request):
    if request.param == "2":
        yield request.getfixturevalue("volttron_platform")
        return
    platform = request.getfixturevalue("volttron10_platform")
    platform.start_actuator()
    yield platform
    platform.stop_actuator()


@pytest.fixture
def platform10(volttron10_platform):
    volttron10_platform.start_actuator()
    yield volttron10_platform
    volttron10_platform.stop_actuator()


@pytest.fixture
def sink(tmp_path, platform, monkeypatch):
    monkeypatch.setattr(platform_client, "_START_UP", 0.0)  # as for a driver that was met long ago
    sink = Sink(tmp_path, platform)
    yield sink
    platform.driver.signal(signal.SIGCONT)


@pytest.fixture
def sink10(tmp_path, platform10):
    return Sink(tmp_path, platform10)


def test_a_suspended_driver_gets_no_write_after_the_expiry(sink):
    with sink.running():
        sink.end(sink.send(60.0))
        sink.platform.driver.signal(signal.SIGSTOP)
        short, long = sink.send(61.0, ttl=3.0), sink.send(62.0)
        assert sink.end(short)["state"] == "EXPIRED"
        sink.platform.driver.signal(signal.SIGCONT)
        assert sink.end(long)["state"] == "SUCCEEDED"
    assert sink.written() == [("set", 60.0), ("set", 62.0)]


def test_a_write_that_a_driver_delayed_beyond_the_expiry_is_never_reported_as_in_time(sink):
    """Seeded: when the driver stands still, around the read and the write."""
    dice = random.Random(7)
    with sink.running():
        sink.end(sink.send(50.0))
        earlier = len(sink.platform.writes())  # other tests write these values on this platform, too
        for number in range(6):
            value = 51.0 + number
            command = sink.send(value, ttl=1.0)
            time.sleep(dice.uniform(0, 0.03))
            sink.platform.driver.signal(signal.SIGSTOP)
            time.sleep(2.2)
            sink.platform.driver.signal(signal.SIGCONT)
            result = sink.end(command)
            time.sleep(0.5)
            done = [w for w in sink.platform.writes()[earlier:] if w["value"] == value]
            late = [w for w in done if _moment(w["time"]) * 1_000_000 >= command["expires_at"]]
            assert len(done) <= 1
            if late:
                assert (result["state"], result["reason_code"]) != ("SUCCEEDED", "")
                assert result["reason_code"] in ("MAYBE_LATE", "NO_ANSWER", "NOT_READ_BACK")
            if result["state"] in ("EXPIRED", "FAILED"):
                assert done == []


def test_an_actuator_that_is_stopped_is_not_bypassed(sink10):
    platform = sink10.platform
    with sink10.running():
        sink10.end(sink10.send(60.0))
        platform.stop_actuator()
        assert sink10.end(sink10.send(61.0, ttl=2.0))["state"] == "EXPIRED"
    with sink10.running():
        assert sink10.end(sink10.send(62.0, ttl=2.0))["state"] == "EXPIRED"
    sink10.changelogs = Changelogs()  # a worker that has never seen this platform
    sink10.offset = 0
    with sink10.running(**{"audit.file": str(sink10.folder / "another.log")}):
        assert sink10.end(sink10.send(63.0, ttl=2.0))["state"] == "EXPIRED"
        waiting = sink10.send(64.0)
        platform.start_actuator()
        assert sink10.end(waiting)["state"] == "SUCCEEDED"
    assert sink10.written() == [("set", 60.0), ("set", 64.0)]


def test_a_hold_that_ends_during_another_agents_reservation_is_reverted_after_it(sink10):
    platform = sink10.platform
    with sink10.running(), platform.connect("spare1") as other:
        held = sink10.send(66.0, hold_ms=1000)
        sink10.end(held)
        reserve(other, "theirs", "HIGH", 6.0)
        alarm = sink10.end(held, "HOLD_FAILED")
        assert "spare1" in alarm["reason"]
        sink10.end(held, "HOLD_ENDED")
    assert sink10.written() == [("set", 66.0), ("revert", 72.0)]


def test_a_hold_that_ends_during_an_override_is_reverted_after_it(tmp_path, volttron_platform):
    sink = Sink(tmp_path, volttron_platform)
    with sink.running(), volttron_platform.connect() as other:
        held = sink.send(66.0, hold_ms=1000)
        sink.end(held)
        other.call("platform.driver", "set_override_on", f"devices/{DEVICE}", 0.0, False)
        sink.end(held, "HOLD_FAILED")
        assert sink.written() == [("set", 66.0)]
        other.call("platform.driver", "set_override_off", f"devices/{DEVICE}")
        sink.end(held, "HOLD_ENDED")
    assert sink.written() == [("set", 66.0), ("revert", 72.0)]


def test_a_real_actuator_announces_the_owner_of_a_preempted_device(sink10):
    with sink10.running(), sink10.platform.connect("spare1") as other:
        reserve(other, "weak", "LOW_PREEMPT", 600.0)
        reserve(other, "later", "LOW", 20.0, start=45.0, device="campus/building/device2")
        result = sink10.end(sink10.send(67.0, ttl=8.0, priority=8))
        assert (result["state"], result["reason_code"]) == ("FAILED", "DEVICE_REFUSED")
        assert "spare1 keeps the device" in result["reason"]
        writes = [{"point": "campus/building/device2/ZoneTemperatureSetPoint", "value": 68.0}]
        assert sink10.end(sink10.send(68.0, priority=8, writes=writes))["state"] == "SUCCEEDED"
        again = reserve(other, "later", "LOW", 20.0, start=45.0, device="campus/building/device2", may=False)
        assert again["info"] == "TASK_ID_ALREADY_EXISTS"  # it was not cancelled
        for task in ("weak", "later"):
            other.call("platform.actuator", "request_cancel_schedule", "x", task)


def reserve(other, task, priority, seconds, start=-1.0, device=DEVICE, may=True):
    now = datetime.now(timezone.utc)
    slot = [(now + timedelta(seconds=moment)).isoformat() for moment in (start, start + 1 + seconds)]
    answer = other.call("platform.actuator", "request_new_schedule", "x", task, priority, [[device, *slot]])
    assert (answer["result"] == "SUCCESS") is may, answer
    return answer


def _moment(time_of_write):
    return (
        datetime.fromisoformat(time_of_write).timestamp() if isinstance(time_of_write, str) else time_of_write
    )
