"""An outage is said at once, again with growing pauses, and at its end; and shown as long as it lasts."""

import logging

import pytest

from tieline.api import RetriableError
from tieline.runtime.errors.failure_table import Stage
from tieline.runtime.task.connections import Connections
from tieline.runtime.task.context import TaskContext
from tieline.runtime.task.environment import TaskEnvironment
from tieline.testing.clock import FakeClock

MIDNIGHT = 1_767_225_600_000


class Time:
    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> float:
        return self.seconds

    def wall_ms(self) -> int:
        return MIDNIGHT + int(self.seconds * 1000)


@pytest.fixture
def lines(caplog):
    caplog.set_level(logging.INFO)
    return lambda: [record.getMessage() for record in caplog.records]


def test_an_outage_is_logged_at_once_at_growing_intervals_and_at_its_end(lines):
    time = Time()
    connections = Connections(time.now, time.wall_ms)
    times: list[int] = []
    for second in range(24 * 3600):
        time.seconds = float(second)
        connections.not_connected("the platform", "keys refused")
        connections.remind()
        times += [second] * (len(lines()) - len(times))
    logged = lines()
    assert times[:5] == [0, 60, 300, 1260, 4860]
    assert len(times) == 4 + 23  # the longest pause is an hour
    assert logged[0] == "not connected to the platform: keys refused"
    assert (
        logged[2] == "not connected to the platform since 2026-01-01T00:00:00+00:00 (for 5 min): keys refused"
    )
    connections.connected("the platform")
    assert lines()[-1] == "connected to the platform again after 23 h 59 min"
    connections.remind()
    connections.connected("the platform")
    assert len(lines()) == len(logged) + 1


def test_a_new_reason_is_logged_at_once_and_alternating_reasons_are_logged_once(lines):
    time = Time()
    connections = Connections(time.now, time.wall_ms)
    for n in range(100):
        connections.not_connected("it", "refused" if n % 2 else "no answer")
    assert lines() == ["not connected to it: no answer", "not connected to it: refused"]
    for n in range(100):
        connections.not_connected("it", f"attempt {n}")
    assert len(lines()) == 8
    assert connections.all()[0]["because"] == "attempt 99"


def test_a_lost_connection_is_shown_with_its_beginning_and_its_newest_reason():
    time = Time()
    connections = Connections(time.now, time.wall_ms)
    connections.not_connected("b", "x")
    time.seconds = 90.0
    connections.not_connected("b", "y")
    connections.not_connected("a", "z")
    assert connections.all() == [
        {"to": "a", "since": "2026-01-01T00:01:30+00:00", "because": "z"},
        {"to": "b", "since": "2026-01-01T00:00:00+00:00", "because": "y"},
    ]
    connections.connected("b")
    assert [outage["to"] for outage in connections.all()] == ["a"]


def test_a_wrong_clock_does_not_break_the_report():
    connections = Connections(lambda: 0.0, lambda: -(10**18))
    connections.not_connected("it", "x")
    assert connections.all()[0]["since"] == f"{-(10**18)} ms"


def test_an_outage_that_the_runtime_waits_out_is_shown_without_the_connectors_help():
    environment = TaskEnvironment("out", 0, clock=FakeClock())
    patience = environment.retry_state(Stage.TASK_PUT)
    patience.after(RetriableError("MongoDB at h: connection refused"))
    patience.after(RetriableError("MongoDB at h: timed out"))
    (outage,) = environment.connections.all()
    assert outage["to"] == "the external system (TASK_PUT)"
    assert outage["because"] == "MongoDB at h: timed out"
    patience.over()
    assert environment.connections.all() == []


def test_a_connector_reports_what_it_keeps_connected_itself():
    environment = TaskEnvironment("in", 0, clock=FakeClock())
    context = TaskContext(environment)
    context.not_connected("the platform at tcp://h:1", "keys refused")
    assert environment.connections.all()[0]["because"] == "keys refused"
    context.connected("the platform at tcp://h:1")
    assert environment.connections.all() == []
