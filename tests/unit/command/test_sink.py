"""The command sink on changelogs in memory and the stand-in for a router, counted at the device."""

import json
import os
import threading
import time
import uuid
from typing import Any

import pytest

from tieline.api import ID_HEADER, RetriableError, SinkRecord, TopicPartition
from tieline.testing.changelogs import Changelogs
from tieline.testing.sink_context import RecordingSinkContext
from tieline_connectors.command.config import CommandSinkConfig
from tieline_connectors.command.execution import conditions, platform_client
from tieline_connectors.command.sink import CommandSinkTask
from tieline_connectors.volttron_bus.testing.fake_router import FakeRouter, NoAnswerError, RpcMethodError

AT = TopicPartition("commands", 0)
POINT = "campus/b1/ahu1/CoolingSetpoint"
POLICY = """
version: 1
rules:
  - issuers: energy-manager
    points: campus/b1/*/CoolingSetpoint
    actions: [SET, REVERT]
    type: float
    min: 18
    max: 26
"""


class Device:
    """One point; each write is kept."""

    def __init__(self):
        self.value = 21.0
        self.writes = []
        self.on_set = lambda: None

    def set_point(self, path, point, value):
        assert f"{path}/{point}" == POINT
        self.writes.append(value)
        self.value = value
        self.on_set()
        return value

    def get_point(self, path, point):
        return self.value

    def revert_point(self, path, point):
        self.writes.append("revert")
        self.value = 21.0

    @property
    def methods(self):
        return {name: getattr(self, name) for name in ("set_point", "get_point", "revert_point")}


class Stand:
    """A device, a bus, and lives of the task, one after the other."""

    def __init__(self, folder, bus, device):
        self.device, self.folder = device, folder
        self.changelogs = Changelogs()
        self.config = {
            "volttron.address": bus.address,
            "platform.name": "lab",
            "policy.file": str(folder / "policy.yaml"),
            "audit.file": str(folder / "audit.log"),
            "kill.switch.file": str(folder / "kill"),
            "rpc.timeout.ms": "300",
        }
        (folder / "policy.yaml").write_text(POLICY)
        self.offset = 0
        self.bus = bus
        self.task: Any = None

    def start(self, **changes):
        settings = self.config | {key.replace("_", "."): value for key, value in changes.items()}
        self.context = RecordingSinkContext(changelogs=self.changelogs)
        self.task = CommandSinkTask(self.context, CommandSinkConfig.parse(settings))
        self.task.start()
        self.task.open([AT])

    def stop(self):
        if self.task is not None:
            self.context.stopping = True
            self.task.interrupt()
            self.task.close([AT], lost=False)
            self.task.stop()
            self.task = None

    def send(self, *values):
        records = []
        for value in values:
            headers = ((ID_HEADER, b"topic-%d" % self.offset),)
            now = time.time_ns() // 1_000_000
            records.append(SinkRecord(*AT, self.offset, value, None, headers, now))
            self.offset += 1
        self.task.put(records)

    def results(self, command_id=None):
        results = [record.value for record in self.changelogs.records if record.topic == "command-results"]
        return [r for r in results if command_id in (None, r["command_id"])]

    def end(self, command_id, *states):
        """The result that has one of these states; waited for."""
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            for result in self.results(command_id):
                if result["state"] in (states or ("SUCCEEDED",)):
                    return result
            time.sleep(0.005)
        raise AssertionError(f"{command_id}: only {[r['state'] for r in self.results(command_id)]}")


@pytest.fixture
def stand(tmp_path):
    device = Device()
    with FakeRouter(rpc={"platform.driver": device.methods}) as bus:
        stand = Stand(tmp_path, bus, device)
        yield stand
        stand.stop()
        assert bus.dropped == 0


def new_command(value=22.5, **fields):
    now = time.time_ns() // 1000
    return {
        "command_id": str(uuid.uuid4()),
        "issuer": "energy-manager",
        "issued_at": now,
        "action": "SET",
        "writes": [{"point": POINT, "value": value}],
        **fields,
    }


def test_a_command_is_executed_once_verified_and_answered(stand):
    stand.start()
    command = new_command(correlation_id="c1")
    stand.send(command)
    result = stand.end(command["command_id"])
    assert result["writes"][0]["previous"] == 21.0
    assert result["writes"][0]["actual"] == 22.5
    assert result["correlation_id"] == "c1"
    assert [r["state"] for r in stand.results(command["command_id"])] == [
        "ACCEPTED",
        "EXECUTING",
        "SUCCEEDED",
    ]
    assert stand.device.writes == [22.5]
    assert stand.changelogs.offsets == {AT: 1}


def test_the_same_command_again_is_answered_again_and_not_executed(stand):
    stand.start()
    command = new_command()
    stand.send(command)
    first = stand.end(command["command_id"])
    stand.send(command, command)
    assert stand.results(command["command_id"])[-2:] == [first, first]
    stand.stop()
    stand.start()
    stand.send(command)
    assert stand.results(command["command_id"])[-1] == first
    assert stand.device.writes == [22.5]


def test_the_same_id_with_another_body_is_a_conflict(stand):
    stand.start()
    command = new_command()
    stand.send(command, {**command, "writes": [{"point": POINT, "value": 25.0}]})
    assert stand.end(command["command_id"], "REJECTED")["reason_code"] == "CONFLICT"
    stand.end(command["command_id"])
    assert stand.device.writes == [22.5]


@pytest.mark.parametrize(
    ("change", "state", "code"),
    [
        ({"issuer": "nobody"}, "REJECTED", "NOT_ALLOWED"),
        ({"writes": [{"point": POINT, "value": 31.0}]}, "REJECTED", "POLICY_MAX"),
        ({"writes": [{"point": "campus/b1/ahu1/Other", "value": 20.0}]}, "REJECTED", "NOT_ALLOWED"),
        ({"expires_at": 1}, "EXPIRED", "EXPIRED"),
        ({"issued_at": 1}, "EXPIRED", "EXPIRED"),
        ({"writes": []}, "REJECTED", "MALFORMED"),
        ({"priority": 3}, "REJECTED", "POLICY_PRIORITY"),
    ],
)
def test_a_forbidden_command_is_answered_and_never_written(stand, change, state, code):
    stand.start()
    command = new_command() | change
    stand.send(command)
    result = stand.end(command["command_id"], state)
    assert result["reason_code"] == code
    assert stand.device.writes == []
    assert stand.changelogs.offsets == {AT: 1}


def test_the_kill_switch_works_without_a_restart(stand, tmp_path):
    stand.start()
    (tmp_path / "kill").write_text("fire alarm\n")
    command = new_command()
    stand.send(command)
    assert "fire alarm" in stand.end(command["command_id"], "REJECTED")["reason"]
    (tmp_path / "kill").unlink()
    two = new_command()
    stand.send(two)
    stand.end(two["command_id"])
    assert stand.device.writes == [22.5]


def test_a_changed_policy_applies_at_once_and_an_invalid_one_never(stand, tmp_path):
    stand.start()
    (tmp_path / "policy.yaml").write_text(POLICY.replace("max: 26", "max: 22"))
    command = new_command(25.0)
    stand.send(command)
    assert stand.end(command["command_id"], "REJECTED")["reason_code"] == "POLICY_MAX"
    (tmp_path / "policy.yaml").write_text("rules: [")
    two, three = new_command(25.0), new_command(20.0)
    stand.send(two, three)
    assert stand.end(two["command_id"], "REJECTED")["reason_code"] == "POLICY_MAX"
    stand.end(three["command_id"])


def test_a_dry_run_checks_and_writes_nothing(stand):
    stand.start()
    command = new_command(dry_run=True)
    stand.send(command)
    assert stand.end(command["command_id"])["dry_run"] is True
    assert stand.device.writes == []


def test_a_kill_switch_engaged_while_the_platform_is_read_stops_the_write(stand, tmp_path):
    stand.start()
    look = stand.device.get_point

    def look_and_fall(path, point):
        (tmp_path / "kill").write_text("smoke\n")
        return look(path, point)

    stand.bus.rpc["platform.driver"]["get_point"] = look_and_fall
    command = new_command()
    stand.send(command)
    assert stand.end(command["command_id"], "REJECTED")["reason_code"] == "KILL_SWITCH"
    assert stand.device.writes == []


def test_a_hold_reverts_the_point_even_after_a_restart(stand):
    stand.start()
    command = new_command(hold_ms=1000)
    stand.send(command)
    stand.end(command["command_id"])
    stand.stop()
    time.sleep(1.1)
    assert stand.device.writes == [22.5]
    stand.start()
    stand.end(command["command_id"], "HOLD_ENDED")
    assert stand.device.writes == [22.5, "revert"]


@pytest.mark.slow
def test_an_unavailable_platform_is_awaited_until_the_command_expires(stand):
    stand.start()
    stand.bus.stop()
    late = new_command(expires_at=time.time_ns() // 1000 + 700_000)
    soon = new_command(23.0)
    stand.send(late, soon)
    assert stand.end(late["command_id"], "EXPIRED")
    wait_for(stand.context.connections.all)
    (outage,) = stand.context.connections.all()
    assert outage["to"] == f"the platform at {stand.bus.address}"
    stand.bus.start()
    stand.end(soon["command_id"])
    assert stand.device.writes == [23.0]
    assert stand.context.connections.all() == []


@pytest.mark.slow
def test_a_platform_that_disconnects_before_a_command_has_started_is_awaited(stand):
    """The connection is there until it is used: that is noticed before STARTED, and costs no command."""
    stand.start()
    command = new_command()
    stand.send(command)
    stand.end(command["command_id"])
    stand.bus.fall_silent()
    late, soon = new_command(expires_at=time.time_ns() // 1000 + 1_500_000), new_command(23.0)
    stand.send(late, soon)
    assert stand.end(late["command_id"], "EXPIRED", "FAILED", "UNKNOWN")["state"] == "EXPIRED"
    stand.bus.stop()
    stand.bus.start()
    assert stand.end(soon["command_id"], "SUCCEEDED", "FAILED", "UNKNOWN")["state"] == "SUCCEEDED"
    assert stand.device.writes == [22.5, 23.0]


def test_no_answer_is_never_a_failure_and_is_proved_by_reading_back(stand):
    stand.start()
    stand.device.on_set = lambda: time.sleep(0.5)  # longer than rpc.timeout.ms
    command = new_command()
    stand.send(command)
    result = stand.end(command["command_id"], "SUCCEEDED", "UNKNOWN", "FAILED")
    assert result["reason_code"] in ("PROVED_BY_READ_BACK", "NO_ANSWER")
    assert result["state"] != "FAILED"
    assert stand.device.writes == [22.5]


def test_an_undecodable_record_is_answered_with_its_bytes_and_blocks_nothing(stand):
    stand.start()
    bad = SinkRecord(*AT, 0, b"\xff\x00", None, ((ID_HEADER, b"topic-0"),), 0)
    assert stand.task.handle_undecodable(bad, ValueError("no schema has the id 7"))
    stand.offset = 1
    command = new_command()
    stand.send(command)
    stand.end(command["command_id"])
    answer = stand.results("topic-0")[0]
    assert (answer["state"], answer["raw"]) == ("REJECTED", b"\xff\x00")
    assert "no schema has the id 7" in answer["reason"]


def test_the_old_agents_form_is_off_unless_an_issuer_is_configured_for_it(stand):
    old = {"message": "m", "new_value": "22.5", "device_point": POINT}
    stand.start()
    stand.send(old)
    assert "old.issuer" in stand.end("topic-0", "REJECTED")["reason"]
    stand.stop()
    stand.start(old_issuer="energy-manager", results_old_topic="command-to-cloud")
    stand.send(old)
    stand.end("topic-1")
    reported = [record.value for record in stand.changelogs.records if record.topic == "command-to-cloud"]
    assert reported == [
        {
            "from": "CloudAgent",
            "to": "Cloud",
            "message": "SUCCEEDED",
            "device_point": POINT,
            "new_value": 22.5,
        }
    ]
    assert stand.device.writes == [22.5]


def test_every_result_is_in_the_audit_log_and_its_chain_is_intact(stand, tmp_path):
    from tieline_connectors.command.audit.verification import verify_file

    stand.start()
    command = new_command()
    stand.send(command, new_command(99.0))
    stand.end(command["command_id"])
    stand.stop()
    lines = [json.loads(line) for line in (tmp_path / "audit.log").read_text().splitlines()]
    reported = ["ACCEPTED", "REJECTED", "EXECUTING", "SUCCEEDED"]
    assert [line["event"]["state"] for line in lines] == ["TAKEN_OVER", *reported]
    assert verify_file(tmp_path / "audit.log") is None


class Actuator:
    """VOLTTRON 10's actuator, which refuses a write without a reservation (allow_no_lock_write off)."""

    def __init__(self, device):
        self.device, self.task, self.slots = device, None, []

    def reserve(self, requester, task, priority, slots):
        self.task = task
        self.slots.append((priority, [slot[0] for slot in slots]))
        return {"result": "SUCCESS", "data": {}, "info": ""}

    def cancel(self, requester, task):
        assert task == self.task
        self.task = None
        return {"result": "SUCCESS", "data": {}, "info": ""}

    def locked(self, method):
        def call(requester, topic, *value):
            if self.task is None:
                raise RuntimeError("LockError: caller does not have this lock")
            return method(*topic.rsplit("/", 1), *value)

        return call

    @property
    def methods(self):
        return {
            "get_point": lambda topic: self.device.get_point(*topic.rsplit("/", 1)),
            "set_point": self.locked(self.device.set_point),
            "revert_point": self.locked(self.device.revert_point),
            "request_new_schedule": self.reserve,
            "request_cancel_schedule": self.cancel,
        }


def test_on_volttron_10_the_device_is_reserved_for_the_write_and_for_the_end_of_its_hold(stand):
    actuator = Actuator(stand.device)
    stand.bus.rpc["platform.actuator"] = actuator.methods
    stand.start()
    command = new_command(priority=8, hold_ms=200)
    stand.send(command)
    stand.end(command["command_id"])
    assert stand.end(command["command_id"], "HOLD_ENDED", "HOLD_FAILED")["state"] == "HOLD_ENDED"
    assert stand.device.writes == [22.5, "revert"]
    assert actuator.slots == [("HIGH", ["campus/b1/ahu1"])] * 2
    assert actuator.task is None


def test_ends_ages_and_calls_are_counted(stand):
    stand.start()
    good, refused, late = new_command(), new_command(99.0), new_command(issued_at=1)
    stand.send(good, refused, late, {"command_id": "x"})
    stand.end(good["command_id"])
    stand.send(good)
    wait_for(lambda: stand.context.counters["ended.SUCCEEDED"] == 1)
    counted = stand.context.counters
    names = ("accepted", "refused", "repeated", "malformed", "executed", "ended.REJECTED", "ended.EXPIRED")
    assert {name: counted[name] for name in names} == {
        "accepted": 1,
        "refused": 2,
        "repeated": 1,
        "malformed": 1,
        "executed": 1,
        "ended.REJECTED": 1,
        "ended.EXPIRED": 1,
    }
    assert counted["rpc.calls"] == 3  # read, written, read back
    assert 0 <= counted["age.ms"] == counted["age.ms.max"] < 10_000
    assert counted["rpc.ms.max"] <= counted["rpc.ms"] < 10_000


def wait_for(what):
    deadline = time.monotonic() + 10
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.slow
def test_holds_stay_when_the_worker_stops_unless_it_is_configured_to_revert_them(stand):
    stand.start()
    command = new_command(hold_ms=60_000)
    stand.send(command)
    stand.end(command["command_id"])
    stand.stop()
    assert stand.device.writes == [22.5]
    stand.start(hold_revert_on_stop_ms="2000")
    two = new_command(23.5, hold_ms=60_000)
    stand.send(two)
    stand.end(two["command_id"])
    stand.stop()
    assert stand.device.writes == [22.5, 23.5, "revert"]
    assert stand.end(two["command_id"], "HOLD_ENDED")["reason_code"] == "STOPPED"
    assert stand.end(command["command_id"], "HOLD_SKIPPED")["reason_code"] == "LATER_COMMAND"


@pytest.mark.slow
@pytest.mark.parametrize("why", ["away", "killed"])
def test_a_hold_that_cannot_be_reverted_at_the_stop_is_reverted_after_the_next_start(stand, tmp_path, why):
    stand.start(hold_revert_on_stop_ms="500")
    command = new_command(hold_ms=1_000)
    stand.send(command)
    stand.end(command["command_id"])
    if why == "away":
        stand.bus.stop()
    else:
        (tmp_path / "kill").touch()
    began = time.monotonic()
    stand.stop()
    assert time.monotonic() - began < 4
    assert stand.device.writes == [22.5]
    stand.bus.start() if why == "away" else (tmp_path / "kill").unlink()
    stand.start()
    stand.end(command["command_id"], "HOLD_ENDED")
    assert stand.device.writes == [22.5, "revert"]


def test_a_partition_that_only_moves_keeps_its_holds(stand):
    stand.start(hold_revert_on_stop_ms="2000")
    command = new_command(hold_ms=60_000)
    stand.send(command)
    stand.end(command["command_id"])
    began = time.monotonic()
    stand.task.close([AT], lost=False)
    assert time.monotonic() - began < 1.5, "there is nothing to wait for"
    stand.task.open([AT])
    assert stand.device.writes == [22.5]
    stand.stop()
    assert stand.device.writes == [22.5, "revert"]


class Starting:
    """A driver that answers, and knows its devices only from some moment on."""

    def __init__(self, device):
        self.device, self.knows, self.asked = device, False, 0

    def get_point(self, path, point):
        self.asked += 1
        if not self.knows:
            raise ValueError(f"No equipment found for topic: {path}/{point}")
        return self.device.get_point(path, point)

    def set_point(self, path, point, value):
        if not self.knows:
            raise ValueError(f"No equipment found for topic: {path}/{point}")
        return self.device.set_point(path, point, value)


def test_a_driver_that_does_not_know_its_devices_yet_is_awaited(stand):
    driver = Starting(stand.device)
    stand.bus.rpc["platform.driver"] |= {"get_point": driver.get_point, "set_point": driver.set_point}
    stand.start()
    command = new_command()
    stand.send(command)
    wait_for(lambda: driver.asked >= 2)
    assert [r["state"] for r in stand.results(command["command_id"])] == ["ACCEPTED"]
    driver.knows = True
    stand.end(command["command_id"], "SUCCEEDED", "FAILED")
    assert stand.device.writes == [22.5]


@pytest.mark.slow
def test_a_device_that_a_driver_never_knows_is_a_failure_in_the_end(stand, monkeypatch):
    monkeypatch.setattr(platform_client, "_START_UP", 1.0)
    driver = Starting(stand.device)
    stand.bus.rpc["platform.driver"] |= {"get_point": driver.get_point, "set_point": driver.set_point}
    stand.start()
    command = new_command()
    stand.send(command)
    assert stand.end(command["command_id"], "FAILED")["reason_code"] == "DEVICE_REFUSED"
    assert driver.asked >= 3


def test_two_tasks_with_one_identity_set_are_two_on_the_bus_and_both_at_once(stand):
    stand.start(volttron_identity="me")
    config = stand.config | {"volttron.identity": "me"}
    context = RecordingSinkContext(task=1, changelogs=stand.changelogs)
    other = CommandSinkTask(context, CommandSinkConfig.parse(config))
    other.start()
    beside = TopicPartition("commands", 1)
    other.open([beside])
    try:
        first, second = new_command(), new_command(23.0)
        stand.send(first)
        stand.end(first["command_id"])  # it is the same point: the second would change what the first reads
        other.put(
            [SinkRecord(*beside, 0, second, None, ((ID_HEADER, b"t-1-0"),), time.time_ns() // 1_000_000)]
        )
        stand.end(second["command_id"])
        assert stand.bus.peers == {b"me", b"me-1"}
    finally:
        other.interrupt()
        other.close([beside], lost=False)
        other.stop()


@pytest.mark.parametrize("code", ["E_BUSY", None, [1], {"a": 1}, True, 2**70])
def test_an_error_with_any_code_refuses_one_command_and_the_next_is_executed(stand, code):
    def refuse(path, point, value):
        if value == 22.5:
            raise RpcMethodError(code, "busy")
        return stand.device.set_point(path, point, value)

    stand.bus.rpc = {"platform.driver": stand.device.methods | {"set_point": refuse}}
    stand.start()
    first, second = new_command(22.5), new_command(23.5)
    stand.send(first, second)
    assert "busy" in stand.end(first["command_id"], "FAILED")["reason"]
    stand.end(second["command_id"])
    assert stand.device.writes == [23.5]


@pytest.mark.parametrize("what", ["a stranger's", "an allowed one's", "no command"])
def test_a_records_timestamp_does_not_affect_commands_and_holds_of_another_partition(stand, what):
    stand.start()
    stand.task.open([TopicPartition("commands", 2)])
    command = new_command(hold_ms=300)
    stand.send(command)
    stand.end(command["command_id"])
    ahead = time.time_ns() // 1_000_000 + 59 * 60_000
    value = {
        "a stranger's": new_command(issuer="nobody"),
        "an allowed one's": new_command(dry_run=True),
        "no command": 42,
    }
    stand.task.put([SinkRecord("commands", 2, 0, value[what], None, ((ID_HEADER, b"t-2-0"),), ahead)])
    two = new_command(23.5)
    stand.end(command["command_id"], "HOLD_ENDED")
    stand.send(two)
    stand.end(two["command_id"])
    assert stand.device.writes == [22.5, "revert", 23.5]


@pytest.mark.parametrize("written", [f"devices/devices/{POINT}", f"DEVICES/{POINT}", f"{POINT}\u200b"])
def test_a_point_that_a_platform_could_read_differently_is_answered_and_never_written(stand, written):
    stand.start()
    command = new_command() | {"writes": [{"point": written, "value": 20.0}]}
    stand.send(command)
    assert stand.end(command["command_id"], "REJECTED")["reason_code"] == "MALFORMED"
    assert stand.device.writes == []


@pytest.mark.parametrize("written", [f"devices/{POINT}", f"/{POINT}/"])
def test_any_spelling_of_a_point_is_reported_and_written_in_its_canonical_form(stand, written):
    stand.start()
    command = new_command() | {"writes": [{"point": written, "value": 22.5}]}
    stand.send(command)
    assert [write["point"] for write in stand.end(command["command_id"])["writes"]] == [POINT]
    assert stand.device.writes == [22.5]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["FIFO", "folder", "broken link", "hung mount"])
def test_an_unreadable_kill_switch_is_engaged_and_blocks_neither_sink_nor_stop(
    stand, tmp_path, monkeypatch, kind
):
    answers = threading.Event()
    if kind == "hung mount":
        monkeypatch.setattr(conditions, "kill_switch_reason", lambda path: answers.wait() or "")
    elif kind == "FIFO":
        os.mkfifo(tmp_path / "kill")
    elif kind == "folder":
        (tmp_path / "kill").mkdir()
    else:
        (tmp_path / "kill").symlink_to(tmp_path / "nowhere")
    stand.start()
    command = new_command()
    stand.send(command)
    result = stand.end(command["command_id"], "REJECTED")
    assert (result["reason_code"], stand.device.writes) == ("KILL_SWITCH", [])
    assert {"hung mount": "does not answer"}.get(kind, kind) in result["reason"]
    began = time.monotonic()
    stand.stop()
    assert time.monotonic() - began < 5
    answers.set()


@pytest.mark.parametrize("how", ["deleted", "moved", "emptied", "replaced"])
def test_no_device_is_written_without_a_line_at_the_path_of_the_audit_log(stand, tmp_path, how):
    path = tmp_path / "audit.log"
    missing = []

    def on_set():
        states = [json.loads(line)["event"]["state"] for line in path.read_bytes().splitlines()]
        if states[-1:] != ["EXECUTING"]:
            missing.append(states)

    stand.device.on_set = on_set
    stand.start()
    for number in range(3):
        command = new_command(20.0 + number)
        stand.send(command)
        stand.end(command["command_id"])
        if how == "deleted":
            path.unlink()
        elif how == "emptied":
            os.truncate(path, 0)
        else:
            path.rename(tmp_path / f"audit.log.{number}")
            path.touch() if how == "replaced" else None
    assert missing == []
    assert stand.device.writes == [20.0, 21.0, 22.0]


def test_another_file_in_place_of_the_audit_log_stops_all_writes_until_it_is_moved(stand, tmp_path):
    path = tmp_path / "audit.log"
    stand.start()
    path.rename(tmp_path / "old")
    path.write_text("something else\n")
    command = new_command()
    with pytest.raises(RetriableError, match="another file is in its place"):
        stand.send(command)
    assert stand.device.writes == []
    path.rename(tmp_path / "away")
    stand.offset = 0
    stand.send(command)
    stand.end(command["command_id"])
    assert stand.device.writes == [22.5]


@pytest.fixture
def met_long_ago(monkeypatch):
    """No driver counts as one that has just started and may not know its devices yet."""
    monkeypatch.setattr(platform_client, "_START_UP", 0.0)


@pytest.mark.slow
@pytest.mark.usefixtures("met_long_ago")
def test_nothing_is_written_after_a_read_that_was_not_answered_and_the_command_expires(stand):
    """The router lives, the driver stands still: it may hand on what it was sent at any later time."""
    stand.start()
    first = new_command()
    stand.send(first)
    stand.end(first["command_id"])
    stand.bus.freeze("platform.driver")
    short = new_command(23.0, expires_at=time.time_ns() // 1000 + 900_000)
    stand.send(short)
    assert stand.end(short["command_id"], "EXPIRED")["reason_code"] == "EXPIRED"
    stand.bus.thaw("platform.driver")
    long = new_command(23.5)
    stand.send(long)
    stand.end(long["command_id"])
    assert stand.device.writes == [22.5, 23.5]


@pytest.mark.usefixtures("met_long_ago")
def test_a_command_waits_for_a_driver_that_does_not_answer_and_is_executed_once_it_does(stand):
    stand.start()
    stand.bus.freeze("platform.driver")
    command = new_command()
    stand.send(command)
    time.sleep(1.0)
    assert [result["state"] for result in stand.results()] == ["ACCEPTED"]
    stand.bus.thaw("platform.driver")
    stand.end(command["command_id"])
    assert stand.device.writes == [22.5]


@pytest.mark.usefixtures("met_long_ago")
def test_a_device_that_does_not_answer_reads_does_not_delay_the_others(stand):
    """Its driver answers for all else; only that device's commands wait, and expire."""
    held = []

    def read(path, point):
        if path.endswith("dead"):
            held.append(point)
            raise NoAnswerError
        return stand.device.get_point(path, point)

    stand.bus.rpc["platform.driver"] = stand.device.methods | {"get_point": read}
    stand.start()
    now = time.time_ns() // 1000
    points = [{"point": "campus/b1/dead/CoolingSetpoint", "value": 22.5}]
    dead = new_command(writes=points, expires_at=now + 1_500_000)
    others = [new_command(20.0 + n / 10) for n in range(10)]
    stand.send(dead, *others)
    for command in others:
        stand.end(command["command_id"])
    assert stand.end(dead["command_id"], "EXPIRED")
    assert len(stand.device.writes) == 10


def test_a_device_that_falls_silent_is_asked_once_and_does_not_delay_the_others(stand):
    requests = []

    def write(path, point, value):
        requests.append("write")
        raise NoAnswerError

    def read(path, point):
        if requests:
            requests.append("read")
            raise NoAnswerError
        return 21.0

    (stand.folder / "policy.yaml").write_text(POLICY.replace("CoolingSetpoint", "**"))
    stand.bus.rpc["platform.driver"] = stand.device.methods | {"get_point": read, "set_point": write}
    stand.start()
    batch = new_command(writes=[{"point": f"campus/b1/ahu1/P{n}", "value": 22.5} for n in range(50)])
    stand.send(batch)
    assert stand.end(batch["command_id"], "UNKNOWN")["reason_code"] == "NO_ANSWER"
    assert requests == ["write", "read"]


@pytest.mark.slow
@pytest.mark.parametrize(("after", "code"), [(0.0, ""), (2.2, "MAYBE_LATE")])
def test_a_write_that_is_answered_after_its_expiry_says_so(stand, after, code):
    """The driver stands still between the read and the write's answer, for longer than the command lives."""
    stand.start(rpc_timeout_ms="15000")
    stand.device.on_set = lambda: time.sleep(after)
    command = new_command(expires_at=time.time_ns() // 1000 + 2_000_000)
    stand.send(command)
    assert stand.end(command["command_id"])["reason_code"] == code


@pytest.mark.slow
def test_a_write_that_only_a_later_reading_proves_says_that_it_may_be_late(stand):
    stand.start(verify_delay_ms="2000")

    def silent(path, point, value):
        stand.device.set_point(path, point, value)
        raise NoAnswerError

    stand.bus.rpc["platform.driver"] = stand.device.methods | {"set_point": silent}
    late = new_command(expires_at=time.time_ns() // 1000 + 2_000_000)
    stand.send(late)
    assert stand.end(late["command_id"])["reason_code"] == "MAYBE_LATE"
    soon = new_command(23.5)
    stand.send(soon)
    assert stand.end(soon["command_id"])["reason_code"] == "PROVED_BY_READ_BACK"
    assert stand.device.writes == [22.5, 23.5]


def with_actuator(stand):
    actuator = Actuator(stand.device)
    stand.bus.rpc["platform.actuator"] = actuator.methods
    return actuator


def without_actuator(stand):
    del stand.bus.rpc["platform.actuator"]


@pytest.mark.slow
@pytest.mark.parametrize("restarted", [False, True])
def test_an_unavailable_actuator_is_an_outage_and_never_bypassed(stand, restarted):
    """Also for a worker that has never seen it: the ledger remembers through whom a command went."""
    with_actuator(stand)
    stand.start()
    first = new_command()
    stand.send(first)
    stand.end(first["command_id"])
    if restarted:
        stand.stop()
    without_actuator(stand)
    stand.bus.generation = "2"  # even if the driver says that there is none
    if restarted:
        stand.start()
    short = new_command(23.0, expires_at=time.time_ns() // 1000 + 1_200_000)
    long = new_command(23.5)
    stand.send(short, long)
    stand.end(short["command_id"], "EXPIRED")
    assert stand.device.writes == [22.5]
    with_actuator(stand)
    stand.end(long["command_id"])
    assert stand.device.writes == [22.5, 23.5]


def test_on_8_9_and_10_a_driver_that_is_there_before_its_actuator_is_not_written_through(stand):
    stand.bus.generation = "10"
    stand.start()
    command = new_command()
    stand.send(command)
    time.sleep(0.8)
    assert [result["state"] for result in stand.results()] == ["ACCEPTED"]
    with_actuator(stand)
    stand.end(command["command_id"])
    assert stand.changelogs.entries(AT)[command["command_id"]]["agent"] == "platform.actuator"


def test_a_platform_without_an_actuator_is_written_through_its_driver_where_that_is_configured(stand):
    stand.bus.generation = "10"
    stand.start(volttron_device_agent="driver")
    command = new_command()
    stand.send(command)
    stand.end(command["command_id"])
    assert stand.changelogs.entries(AT)[command["command_id"]]["agent"] == "platform.driver"


def test_a_configured_actuator_is_awaited(stand):
    stand.start(volttron_device_agent="actuator")
    command = new_command(expires_at=time.time_ns() // 1000 + 800_000)
    stand.send(command)
    stand.end(command["command_id"], "EXPIRED")
    assert stand.device.writes == []


@pytest.mark.slow
@pytest.mark.parametrize("refusal", ["locked", "overridden", "unanswered", "killed", "away"])
def test_a_hold_whose_revert_is_refused_stays_owed_until_the_refusal_ends(stand, tmp_path, caplog, refusal):
    """Across a restart of the worker: the alarm is reported once, and the log repeats it."""
    refusing = True

    def revert(path, point):
        if refusing:
            raise NoAnswerError if refusal == "unanswered" else RuntimeError("LockError: " + refusal)
        stand.device.revert_point(path, point)

    if refusal in ("locked", "overridden", "unanswered"):
        stand.bus.rpc["platform.driver"] = stand.device.methods | {"revert_point": revert}
    stand.start()
    command = new_command(hold_ms=300)
    stand.send(command)
    stand.end(command["command_id"])
    if refusal == "killed":
        (tmp_path / "kill").touch()
    if refusal == "away":
        stand.bus.rpc = {}
    if refusal in ("locked", "overridden", "unanswered"):
        stand.end(command["command_id"], "HOLD_FAILED")
        wait_for(lambda: stand.changelogs.entries(AT)[command["command_id"]]["hold_tries"] >= 2)
    else:
        time.sleep(0.8)
    stand.stop()
    stand.start()
    time.sleep(0.3)
    assert stand.device.writes == [22.5]
    if refusal in ("locked", "overridden", "unanswered"):
        reminder = f"not reverted yet: 1, such as {POINT} of command {command['command_id']}"
        wait_for(lambda: reminder in caplog.text)
    refusing = False
    (tmp_path / "kill").unlink(missing_ok=True)
    stand.bus.rpc = {"platform.driver": stand.device.methods}
    stand.end(command["command_id"], "HOLD_ENDED")
    assert stand.device.writes == [22.5, "revert"]
    states = [r["state"] for r in stand.results(command["command_id"])]
    assert states.count("HOLD_FAILED") == (refusal in ("locked", "overridden", "unanswered"))


@pytest.mark.slow
def test_an_owed_revert_that_an_operator_waives_is_not_owed_any_more(stand):
    def revert(path, point):
        raise RuntimeError("overridden")

    stand.bus.rpc["platform.driver"] = stand.device.methods | {"revert_point": revert}
    stand.start()
    command = new_command(hold_ms=200)
    stand.send(command)
    stand.end(command["command_id"], "HOLD_FAILED")
    stand.stop()
    stand.start(hold_forgive=f"x, {command['command_id']}")
    assert stand.end(command["command_id"], "HOLD_SKIPPED")["reason_code"] == "FORGIVEN"
    assert stand.context.counters["holds.paid"] == 1
