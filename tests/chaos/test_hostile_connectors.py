"""Connectors that misbehave: the worker survives them, reports them, and stops all others in time."""

import os
import signal
import threading
import time

import pytest

from tieline.config.plan import check_plan
from tieline.runtime.worker.factory import open_broker
from tieline.runtime.worker.status_file import statuses
from tieline.runtime.worker.worker import Worker
from tieline.testing.distribution import distribution
from tieline.testing.worker_process import WorkerProcess

PLUGINS = """
import sys
import time
from tieline.api import Config, SourceConnector, SourceRecord, SourceTask


class Bus(SourceTask[Config]):
    replayable = False

    def start(self):
        self.n = 0

    def poll(self, max_records, max_wait):
        if self.context.stopping:
            return []
        time.sleep(0.001)
        self.n += 1
        return [SourceRecord("t", object() if self.n == 1 else str(self.n))]


class Poison(Bus):
    def poll(self, max_records, max_wait):
        return [record._replace(value=b"no JSON") for record in super().poll(max_records, max_wait)]


class Quits(Bus):
    replayable = True

    def poll(self, max_records, max_wait):
        sys.exit(3)


class Fails(Bus):
    def poll(self, max_records, max_wait):
        if self.n == 200:
            raise KeyError("a bug in poll")
        return super().poll(max_records, max_wait)


class Clings(Bus):
    def interrupt(self):
        raise RuntimeError("a bug in interrupt")


def source(task):
    class Source(SourceConnector[Config]):
        config_type = Config
        task_type = task

        def task_configs(self, max_tasks):
            return [{}]

        def stop(self):
            raise RuntimeError("a bug in the connector's stop")

    return Source


BusSource, PoisonSource, QuitsSource, FailsSource, ClingsSource = map(
    source, (Bus, Poison, Quits, Fails, Clings)
)
"""


@pytest.fixture
def run(tmp_path):
    """Run a worker in a thread with one connector of each class named; stopped at the end."""
    names = ("Bus", "Poison", "Quits", "Fails", "Clings")
    classes = {f"hostile_{name.lower()}": f"hostile:{name}Source" for name in names}
    started = []

    def run(*names):
        connectors = [
            (
                name,
                {
                    "name": name,
                    "connector.class": f"hostile_{name}",
                    "value.converter": "json",
                    "restart.enabled": "false",
                },
            )
            for name in names
        ]
        settings = {
            "data.dir": str(tmp_path / "data"),
            "progress.interval.ms": "100",
            "offset.flush.interval.ms": "10",
            "task.shutdown.graceful.timeout.ms": "3000",
        }
        plan = check_plan("test", settings, connectors)
        worker = Worker(plan, open_broker(plan))
        ended = []
        thread = threading.Thread(target=lambda: ended.append(worker.run()))
        thread.start()
        started.append((worker, thread))
        return worker, thread, ended

    with distribution(tmp_path, "hostile", {"tieline.sources": classes}, {"hostile": PLUGINS}):
        yield run
        for worker, thread in started:
            worker.interrupt()
            thread.join(10)
            assert not thread.is_alive()


def until(condition, seconds=10.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def spooled(worker, name):
    return worker.ledger()[name]["counters"].get("spooled", 0)


def test_a_pump_that_failed_does_not_end_the_worker_and_with_it_the_reception(run):
    worker, thread, ended = run("poison")
    until(lambda: worker.ledger()["poison"]["state"] == "FAILED")
    enough = spooled(worker, "poison") + 300  # takes three times the interval at which the worker looks
    until(lambda: spooled(worker, "poison") > enough)
    assert thread.is_alive()
    worker.interrupt()
    thread.join(10)
    assert ended == [False]


def test_a_receiver_that_failed_ends_the_worker_once_its_spool_is_empty(run, tmp_path):
    worker, thread, ended = run("fails")
    thread.join(10)
    assert ended == [False]
    ledger = worker.ledger()["fails"]
    assert (ledger["state"], ledger["delivered"], ledger["in_flight"]) == ("FAILED", 199, 0)
    assert ledger["trace"].startswith("TASK_POLL: KeyError: 'a bug in poll'")
    (status,) = statuses(tmp_path / "data")
    assert status["connectors"]["fails"]["trace"] == ledger["trace"]
    assert "in poll" in ledger["trace"].partition("Traceback")[2]


def test_a_receiver_that_failed_does_not_end_the_worker_while_a_neighbour_runs(run):
    worker, thread, _ = run("fails", "bus")
    failing, bus = worker.connectors
    until(lambda: not failing.running)
    enough = spooled(worker, "bus") + 300
    until(lambda: spooled(worker, "bus") > enough)
    assert (failing.state, bus.state) == ("FAILED", "RUNNING")
    assert thread.is_alive()


def test_a_task_that_exits_the_interpreter_is_failed_and_not_running(run):
    worker, thread, ended = run("quits")
    thread.join(10)
    assert ended == [False]
    assert worker.ledger()["quits"]["state"] == "FAILED"
    assert "SystemExit" in worker.ledger()["quits"]["trace"]


def test_a_connector_that_cannot_be_stopped_does_not_keep_others_from_stopping(run):
    worker, thread, ended = run("clings", "bus")
    until(lambda: spooled(worker, "bus") > 10)
    worker.interrupt()
    thread.join(10)
    assert not thread.is_alive()
    assert {c.name: c.state for c in worker.connectors} == {"clings": "STOPPED", "bus": "STOPPED"}
    assert ended == [True]


def test_a_connector_that_reports_an_error_of_its_own_thread_has_failed_and_its_neighbour_continues(run):
    worker, thread, _ = run("quits", "bus")
    until(lambda: spooled(worker, "bus") > 10)
    failing, bus = worker.connectors
    failing.raise_error(OSError("the watch on the folder broke"))
    until(lambda: not failing.running)
    assert failing.state == "FAILED"
    assert "the watch on the folder broke" in failing.ledger()["trace"]
    assert bus.state == "RUNNING"
    assert thread.is_alive()


def test_repeated_sigterms_count_as_one(tmp_path):
    (tmp_path / "in.txt").write_text("one\n")
    connector = {"name": "in", "connector.class": "file", "file": str(tmp_path / "in.txt"), "topic": "t"}
    with WorkerProcess(tmp_path, {"progress.interval.ms": "100"}, [connector]) as worker:
        worker.wait_for("started")
        for _ in range(300):
            os.kill(worker.pid, signal.SIGTERM)
        assert worker.wait(10) == 0
