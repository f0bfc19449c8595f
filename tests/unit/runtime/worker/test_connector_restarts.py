"""How a running connector restarts what has failed, on a clock that the test moves."""

import threading
import time

import pytest

from tieline.api import Config, FencedError, SourceConnector, SourceRecord, SourceTask, StartupError
from tieline.broker.local.log import LocalLog
from tieline.config.planned import ConverterPlan, SourcePlan
from tieline.config.settings import SourceSettings, Timing
from tieline.converters.plain import StringConverter
from tieline.runtime.worker.connector import RunningConnector
from tieline.runtime.worker.factory import TaskFactory
from tieline.testing.clock import FakeClock

LAST = 300


class World:
    """What goes wrong in a test, and what the connector has done. Each list is consumed."""

    def __init__(self):
        self.poll_errors: list[BaseException] = []
        self.converter_errors: list[Exception] = []
        self.start_errors: list[Exception] = []
        self.build_errors: list[Exception] = []
        self.stop_errors: list[Exception] = []
        self.started = 0
        self.stopped = 0
        self.may_start = threading.Event()
        self.may_start.set()
        self.polls = 0


world = World()


def raise_next(errors):
    if errors:
        raise errors.pop(0)


class Counting(SourceTask[Config]):
    """Counts from where the one before it stopped, to LAST."""

    replayable = False
    count = 0

    def __init__(self, context, config):
        super().__init__(context, config)
        raise_next(world.build_errors)

    def poll(self, max_records, max_wait):
        world.polls += 1
        raise_next(world.poll_errors)
        if Counting.count == LAST:
            time.sleep(0.001)
            return []
        Counting.count += 1
        return [SourceRecord("t", str(Counting.count))]

    def stop(self):
        raise_next(world.stop_errors)


class CountingSource(SourceConnector[Config]):
    task_type = Counting

    def start(self):
        world.started += 1
        raise_next(world.start_errors)
        world.may_start.wait(10)

    def stop(self):
        world.stopped += 1


class Failing(StringConverter):
    def serialize(self, batch):
        raise_next(world.converter_errors)
        return super().serialize(batch)


class Kit:
    """A connector on a local log, and the clock of its restarts."""

    def __init__(self, folder, **restart):
        self.log = LocalLog.open(folder / "log")
        self.clock = FakeClock()
        self.woken = threading.Semaphore(0)
        settings = SourceSettings.parse(
            {
                "name": "in",
                "connector.class": "x",
                "restart.budget": "3",
                **{f"restart.{key.replace('_', '.')}": value for key, value in restart.items()},
            }
        )
        text = ConverterPlan(StringConverter, StringConverter.config_type.parse({}), {})
        value = ConverterPlan(Failing, Failing.config_type.parse({}), {})
        plan = SourcePlan(Config.parse({}), {}, text, value, [], {}, settings, CountingSource)
        factory = TaskFactory(self.log, Timing(0.05, 10, 0.01, 1.0, 1.0), folder)
        self.connector = RunningConnector(plan, factory, self.woken.release, self.clock)

    def begin(self):
        self.connector.prepare()
        self.connector.start()
        return self.connector

    def pass_time(self, seconds):
        self.clock.wait(threading.Event(), seconds)
        self.connector.restart_due()
        until(lambda: not self.connector.is_restarting)

    def fail(self, state):
        """Wait for the end of a task; the connector is in this state then."""
        assert self.woken.acquire(timeout=10)
        assert self.connector.state == state

    def delivered(self):
        return [(record.value or b"").decode() for record in self.log.store.read_from("t", 0, 0, 100_000)]

    def end(self):
        self.connector.interrupt()
        for thread in self.connector.threads:
            assert thread.join(10)
        self.connector.close()
        self.log.close()


@pytest.fixture
def make(tmp_path, monkeypatch):
    monkeypatch.setattr(f"{__name__}.world", World())
    monkeypatch.setattr(Counting, "count", 0)
    kits = []

    def build(**restart):
        kits.append(Kit(tmp_path, **restart))
        return kits[-1]

    yield build
    for kit in kits:
        kit.end()


def until(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_a_pump_that_failed_restarts_after_a_delay_and_the_receiver_never_stops(make):
    kit = make()
    world.converter_errors = [KeyError("a bug")]
    connector = kit.begin()
    receiver, pump = connector.threads
    kit.fail("RESTARTING")
    until(lambda: connector.ledger()["counters"].get("spooled") == LAST)
    assert (receiver.state, pump.state) == ("RUNNING", "RESTARTING")
    assert 0.5 <= connector.next_due <= 1.0
    kit.pass_time(0.49)
    assert pump.state == "RESTARTING"
    kit.pass_time(0.51)
    assert (connector.state, connector.next_due) == ("RUNNING", None)
    until(lambda: connector.ledger()["delivered"] == LAST)
    assert kit.delivered() == [str(n) for n in range(1, LAST + 1)]
    ledger = connector.ledger()
    assert (ledger["received"], ledger["in_flight"], ledger["counters"]["restarts"]) == (LAST, 0, 1)
    assert "trace" not in ledger
    assert connector.threads == (receiver, pump)


def test_a_receiver_that_failed_restarts_and_its_pump_continues(make):
    kit = make()
    world.poll_errors = [KeyError("a bug")]
    connector = kit.begin()
    receiver, pump = connector.threads
    kit.fail("RESTARTING")
    kit.pass_time(1)
    until(lambda: connector.ledger()["delivered"] == LAST)
    assert (receiver.state, pump.state) == ("RUNNING", "RUNNING")
    assert (receiver.describe()["attempts"], pump.describe()["attempts"]) == (0, 0)  # healthy: records came
    assert connector.ledger()["counters"]["restarts"] == 1


def test_the_breaker_opens_after_the_budget_and_its_timer_closes_it(make):
    kit = make(window_ms="10000000", breaker_ms="3000000")
    world.poll_errors = [KeyError("a bug")] * 4
    connector = kit.begin()
    delays = []
    for state in ("RESTARTING", "RESTARTING", "RESTARTING", "FAILED"):
        kit.fail(state)
        delays.append(connector.next_due - kit.clock.now())
        task = connector.ledger()["tasks"][0]
        assert task["next_attempt_ms"] == pytest.approx(kit.clock.wall_ms() + delays[-1] * 1000, abs=1)
        assert (task["state"], task["breaker"]) == (state, "open" if state == "FAILED" else "closed")
        assert connector.can_run
        kit.pass_time(delays[-1] + 1e-6)
    for number, delay in enumerate(delays[:3]):
        assert 2**number / 2 <= delay <= 2**number
    first_restart = delays[0]
    assert sum(delays[:4]) == pytest.approx(
        first_restart + 10_000, abs=0.01
    )  # then the window has a restart left
    until(lambda: connector.ledger()["delivered"] == LAST)
    assert connector.state == "RUNNING"


def test_an_operator_closes_the_breaker_at_once(make):
    kit = make(budget="1", breaker_ms="-1")
    world.poll_errors = [KeyError("a bug")] * 2
    connector = kit.begin()
    kit.fail("RESTARTING")
    kit.pass_time(1)
    kit.fail("FAILED")
    ledger = connector.ledger()
    assert (ledger["breaker"], ledger["next_attempt_ms"], connector.next_due) == ("open", None, None)
    kit.pass_time(1e6)
    assert connector.state == "FAILED"
    connector.restart()
    assert kit.woken.acquire(timeout=10)
    assert connector.next_due == kit.clock.now()
    kit.pass_time(0)
    until(lambda: connector.ledger()["delivered"] == LAST)
    assert (connector.state, connector.next_due) == ("RUNNING", None)


def test_a_restart_that_an_operator_asks_for_also_revives_what_no_restart_helps(make):
    kit = make()
    world.poll_errors = [FencedError("another owner")]
    connector = kit.begin()
    receiver, pump = connector.threads
    kit.fail("FAILED")
    assert receiver.describe()["breaker"] == "closed"
    assert pump.join(10)  # nothing comes any more
    assert not connector.can_run
    connector.restart()
    connector.restart_due()
    until(lambda: connector.ledger()["delivered"] == LAST)
    assert (receiver.state, pump.state) == ("RUNNING", "RUNNING")


def test_a_task_that_cannot_be_built_again_because_of_its_settings_stays_failed(make):
    kit = make()
    world.poll_errors = [KeyError("a bug")]
    connector = kit.begin()
    world.build_errors = [StartupError("the file of devices is gone")]
    kit.fail("RESTARTING")
    kit.pass_time(1)
    assert (connector.state, connector.next_due) == ("FAILED", None)
    assert connector.ledger()["trace"].startswith("START: StartupError: the file of devices is gone")


def test_a_task_that_could_not_be_built_again_is_tried_later(make):
    kit = make()
    world.poll_errors = [KeyError("a bug")]
    connector = kit.begin()
    world.build_errors = [OSError("too many files are open")]
    kit.fail("RESTARTING")
    kit.pass_time(1)
    kit.fail("RESTARTING")
    assert connector.ledger()["attempts"] == 1
    kit.pass_time(2)
    until(lambda: connector.ledger()["delivered"] == LAST)


def test_a_connector_whose_start_failed_restarts_as_a_whole(make):
    kit = make()
    world.start_errors = [OSError("the device list is unavailable")] * 2
    connector = kit.begin()
    assert (connector.state, connector.threads, connector.can_run) == ("RESTARTING", (), True)
    assert connector.ledger()["trace"].startswith("START: OSError: the device list")
    kit.pass_time(1)
    assert (connector.state, connector.ledger()["attempts"]) == ("RESTARTING", 1)
    kit.pass_time(2)
    until(lambda: connector.ledger()["delivered"] == LAST)
    assert (connector.state, world.started, world.stopped) == ("RUNNING", 3, 2)
    assert "trace" not in connector.ledger()


def test_a_connector_that_reports_an_error_restarts_with_new_tasks_and_its_totals_continue(make):
    kit = make()
    connector = kit.begin()
    until(lambda: connector.ledger()["delivered"] > 10)
    before = connector.threads
    connector.raise_error(OSError("the watch on the folder broke"))
    connector.raise_error(OSError("and again"))
    for thread in before:
        assert thread.join(10)
    assert (connector.state, connector.running, connector.can_run) == ("RESTARTING", False, True)
    kit.pass_time(1)
    assert connector.state == "RUNNING"
    assert not set(before) & set(connector.threads)
    until(lambda: connector.ledger()["delivered"] == LAST)
    assert kit.delivered() == [str(n) for n in range(1, LAST + 1)]
    ledger = connector.ledger()
    assert (ledger["received"], ledger["in_flight"], world.stopped) == (LAST, 0, 1)


def test_the_restart_of_a_connector_waits_for_the_end_of_its_last_task(make, monkeypatch):
    kit = make()
    connector = kit.begin()
    receiver, pump = connector.threads
    hold = threading.Event()
    (spool,) = connector.spools.values()
    monkeypatch.setattr(spool, "release", lambda: hold.wait(10))  # the last that a pump does
    connector.raise_error(OSError("the watch on the folder broke"))
    assert receiver.join(10)
    kit.pass_time(1)
    assert (connector.next_due, connector.threads) == (None, (receiver, pump))
    hold.set()
    assert pump.join(10)
    assert connector.next_due <= kit.clock.now()
    kit.pass_time(0)
    until(lambda: connector.ledger()["delivered"] == LAST)


def test_a_start_that_blocks_delays_neither_the_worker_nor_its_stop_and_nothing_runs_after_that(make):
    kit = make()
    world.start_errors = [OSError("the device list is unavailable")]
    connector = kit.begin()
    world.may_start.clear()
    kit.clock.wait(threading.Event(), 1)
    connector.restart_due()
    until(lambda: world.started == 2)
    assert (connector.state, connector.next_due, connector.can_run) == ("RESTARTING", None, True)
    connector.restart_due()  # nothing happens twice
    connector.interrupt()
    assert connector.join(0.01) == ["in (its start)"]
    world.may_start.set()
    assert connector.join(10) == []
    assert (world.started, world.polls) == (2, 0)
    assert all(thread.state == "UNASSIGNED" for thread in connector.threads)


def test_health_resets_the_attempts_after_the_time_without_records(make):
    kit = make(health_ms="60000")
    Counting.count = LAST  # nothing to receive
    world.poll_errors = [KeyError("a bug")] * 2
    connector = kit.begin()
    for _ in range(2):
        kit.fail("RESTARTING")
        kit.pass_time(5)
    assert connector.ledger()["attempts"] == 2
    kit.pass_time(59)
    assert connector.ledger()["attempts"] == 2
    kit.pass_time(1)
    assert connector.ledger()["attempts"] == 0
    world.poll_errors = [KeyError("a bug")]
    kit.fail("RESTARTING")
    assert connector.next_due - kit.clock.now() <= 1


def test_a_task_that_fails_while_it_is_stopped_is_not_restarted(make):
    kit = make()
    connector = kit.begin()
    until(lambda: world.polls)
    world.stop_errors = [KeyError("a bug in stop")]
    connector.interrupt()
    assert connector.threads[0].join(10)
    assert (connector.state, connector.can_run) == ("FAILED", False)
    kit.pass_time(1e6)
    assert connector.threads[0].state == "FAILED"
