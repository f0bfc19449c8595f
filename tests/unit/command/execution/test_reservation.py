"""Reserving devices at an actuator that does as those of VOLTTRON 8, 9 and 10, with its grace time."""

import time
from datetime import datetime, timedelta, timezone

import pytest

from tieline_connectors.command.execution.errors import DeviceRefusedError, DeviceReservedError
from tieline_connectors.command.execution.platform_client import Platform
from tieline_connectors.command.execution.reservation import ANNOUNCEMENTS
from tieline_connectors.volttron_bus.testing.fake_router import FakeRouter
from tieline_connectors.volttron_bus.vip.connection import Endpoint

DEVICES = ("campus/b1/ahu1", "campus/b1/ahu2")
ME = "tieline.commands"


class Task:
    def __init__(self, agent, priority, device, start, end):
        self.agent, self.priority, self.device, self.start, self.end = agent, priority, device, start, end
        self.preempted = False

    def is_running(self, now):
        return self.start <= now < self.end


class Actuator:
    """`actuator.scheduler` in short: who has a device, who is preempted, who may write."""

    def __init__(self, bus, grace=60.0):
        self.bus, self.grace, self.tasks, self.requests = bus, grace, {}, []

    def take(self, agent, task, priority, device, start, end):
        now = datetime.now(timezone.utc)
        reservation = Task(agent, priority, device, start, end)
        self.tasks = {name: reservation for name, reservation in self.tasks.items() if reservation.end > now}
        conflicts: dict[str, dict[str, list[list[str]]]] = {}
        preempted = []
        for name, other in self.tasks.items():
            if other.device != device or other.end <= start or other.start >= end:
                continue
            running = other.is_running(now) and not other.preempted
            weaker = other.priority == "LOW_PREEMPT" or (other.priority == "LOW" and not running)
            if priority == "HIGH" and weaker:
                preempted.append(other)
            else:
                slot = [device, str(other.start), str(other.end)]
                conflicts.setdefault(other.agent, {}).setdefault(name, []).append(slot)
        if conflicts:
            return {"result": "FAILURE", "data": conflicts, "info": "CONFLICTS_WITH_EXISTING_SCHEDULES"}
        for other in preempted:
            if other.is_running(now):
                other.end = min(other.end, now + timedelta(seconds=self.grace))
                other.preempted = True
            else:
                other.end = now
        self.tasks[task] = reservation
        self._announce(device, now)
        return {"result": "SUCCESS", "data": {}, "info": ""}

    def _announce(self, device, now):
        holder = self.holder(device, now)
        if holder is not None:
            window = (holder.end - now).total_seconds()
            headers = {"requesterID": holder.agent, "taskID": "x", "window": window}
            self.bus.publish(f"{ANNOUNCEMENTS}{device}", headers, None, "platform.actuator")

    def holder(self, device, now):
        running = [
            reservation
            for reservation in self.tasks.values()
            if reservation.device == device and reservation.is_running(now)
        ]
        return next(
            (reservation for reservation in running if reservation.preempted), running[0] if running else None
        )

    def reserve(self, requester, task, priority, slots):
        ((device, start, end),) = slots
        self.requests.append((device, datetime.fromisoformat(start), datetime.fromisoformat(end)))
        return self.take(ME, task, priority, device, *self.requests[-1][1:])

    def cancel(self, requester, task):
        return {"result": "SUCCESS" if self.tasks.pop(task, None) else "FAILURE", "data": {}, "info": ""}

    @property
    def methods(self):
        return {"request_new_schedule": self.reserve, "request_cancel_schedule": self.cancel}


@pytest.fixture
def actuator():
    with FakeRouter(rpc={"platform.driver": {}}) as bus:
        actuator = Actuator(bus)
        bus.rpc = {"platform.driver": {}, "platform.actuator": actuator.methods}
        yield actuator
        assert bus.dropped == 0


@pytest.fixture
def platform(actuator):
    platform = Platform(Endpoint(actuator.bus.address, ME), 5.0)
    yield platform
    platform.close()


def seconds(number):
    return datetime.now(timezone.utc) + timedelta(seconds=number)


def test_what_is_reserved_is_what_the_writes_need_and_it_is_given_back(actuator, platform):
    """A fixed minute would cancel tasks that begin 45 s later, or be refused because of them."""
    actuator.take("other", "later", "LOW", DEVICES[0], seconds(45), seconds(90))
    reserved = platform.reserve(DEVICES, "HIGH", 2)
    assert [device for device, *_ in actuator.requests] == list(DEVICES)
    for _, start, end in actuator.requests:
        assert start < datetime.now(timezone.utc)
        assert timedelta(seconds=6) < end - datetime.now(timezone.utc) < timedelta(seconds=8)
    assert actuator.tasks["later"].end > seconds(60)
    assert reserved.wait == 0
    reserved.release()
    assert list(actuator.tasks) == ["later"]
    platform.reserve(DEVICES, "LOW", 2).release()
    assert list(actuator.tasks) == ["later"]


def test_a_reservation_is_extended_where_its_writes_take_longer(actuator, platform):
    reserved = platform.reserve(DEVICES[:1], "LOW", 1)
    first = actuator.requests[0][2]
    reserved.ensure(DEVICES[:1], 3)
    assert len(actuator.requests) == 2
    assert actuator.requests[1][1] == first  # it begins where the first ends: not a conflict
    reserved.release()
    assert actuator.tasks == {}


@pytest.mark.parametrize("name", ["another.agent", "agent\n\ud800" + "x" * 1000])
def test_a_conflict_names_the_device_its_owner_and_the_end_of_the_reservation(actuator, platform, name):
    until = seconds(40)
    actuator.take(name, "theirs", "HIGH", DEVICES[1], seconds(-1), until)
    with pytest.raises(DeviceReservedError) as refused:
        platform.reserve(DEVICES, "HIGH", 2)
    assert refused.value.device == DEVICES[1]
    assert refused.value.until == until
    reported = str(refused.value)
    reported.encode("utf-8")
    assert len(reported) < 800
    assert name.split("\n")[0] in reported
    assert until.strftime("until %Y-%m-%dT%H:%M:%SZ") in reported
    assert list(actuator.tasks) == ["theirs"]  # what was reserved before it is given back


@pytest.mark.slow
def test_the_grace_time_of_a_preempted_task_is_known_and_covered(actuator, platform):
    actuator.grace = 1.0
    actuator.take("weak", "theirs", "LOW_PREEMPT", DEVICES[0], seconds(-1), seconds(600))
    reserved = platform.reserve(DEVICES, "HIGH", 1)
    assert 1.0 < reserved.wait <= 3.0
    assert reserved.holder == "weak"
    ours = [task for task in actuator.tasks.values() if task.agent == ME and task.device == DEVICES[0]]
    assert max(task.end for task in ours) > seconds(reserved.wait + 6)
    while reserved.wait:
        time.sleep(0.1)
    assert actuator.holder(DEVICES[0], datetime.now(timezone.utc)).agent == ME
    reserved.release()


@pytest.mark.parametrize(
    "answer",
    [
        None,
        [],
        "no",
        {"result": "FAILURE"},
        {"result": "FAILURE", "info": "CONFLICTS", "data": "x"},
        {"result": "FAILURE", "info": "CONFLICTS", "data": {"a": {"t": [[1], ["d", "x", "y"], 5]}, "b": 1}},
        {
            "result": "FAILURE",
            "info": ["CONFLICT"],
            "data": {"a": {"t": [["d", "2026-01-01", "9999-12-31"]]}},
        },
    ],
)
def test_any_other_answer_is_a_refusal(actuator, platform, answer):
    actuator.bus.rpc = {"platform.driver": {}} | {
        "platform.actuator": actuator.methods | {"request_new_schedule": lambda *_: answer}
    }
    with pytest.raises(DeviceRefusedError):
        platform.reserve(DEVICES, "LOW", 1)


@pytest.mark.parametrize(
    "headers", [{}, {"requesterID": 1}, {"requesterID": "x", "window": "no"}, {"window": 9}]
)
def test_any_other_announcement_changes_nothing(actuator, platform, headers):
    def reserve(requester, task, priority, slots):
        actuator.bus.publish(f"{ANNOUNCEMENTS}{DEVICES[0]}", headers, None)
        return {"result": "SUCCESS"}

    actuator.bus.rpc = {"platform.driver": {}} | {
        "platform.actuator": actuator.methods | {"request_new_schedule": reserve}
    }
    assert platform.reserve(DEVICES[:1], "HIGH", 1).wait == 0


def test_what_our_lost_connection_had_reserved_is_waited_for(actuator, platform):
    actuator.take(f"{ME}.2", "before", "LOW", DEVICES[0], seconds(-1), seconds(5))
    with pytest.raises(DeviceReservedError) as refused:
        platform.reserve(DEVICES[:1], "LOW", 1)
    assert refused.value.ours
