"""A whole worker in a thread: it reacts to a failed task at once, and ends only if nothing can run again."""

import threading
import time

import pytest

from tieline.config.plan import check_plan
from tieline.runtime.worker.factory import open_broker
from tieline.runtime.worker.status_file import statuses
from tieline.runtime.worker.worker import Worker
from tieline.testing.distribution import distribution

PLUGINS = """
import time
from tieline.api import Config, DataError, SourceConnector, SourceRecord, SourceTask, setting


class Settings(Config):
    failures: int = setting("failures", 0, doc="How often the task fails before it works.")
    hopeless: bool = setting("hopeless", False, doc="Whether the task meets a bad record.")


class Task(SourceTask[Settings]):
    replayable = True
    failed = 0

    def __init__(self, context, config):
        self.config = config
        self.done = False

    def poll(self, max_records, max_wait):
        if self.config.hopeless:
            raise DataError({0: ValueError("a bad record")})
        if Task.failed < self.config.failures:
            Task.failed += 1
            raise KeyError("a bug")
        if self.done:
            time.sleep(max_wait)
            return []
        self.done = True
        return [SourceRecord("t", {"n": 1})]


class Source(SourceConnector[Settings]):
    config_type = Settings
    task_type = Task
"""


@pytest.fixture
def run(tmp_path):
    """Run a worker with one connector that has these settings; it is stopped at the end."""
    started = []

    def run(**settings):
        connector = {
            "name": "in",
            "connector.class": "failing",
            "value.converter": "json",
            "restart.backoff.initial.ms": "1",
            "restart.budget": "5",
            **{key.replace("_", "."): value for key, value in settings.items()},
        }
        interval = connector.pop("progress", "100")
        plan = check_plan(
            "test",
            {"data.dir": str(tmp_path / "data"), "progress.interval.ms": interval},
            [("in", connector)],
        )
        worker = Worker(plan, open_broker(plan))
        ended: list[bool] = []
        thread = threading.Thread(target=lambda: ended.append(worker.run()))
        thread.start()
        started.append((worker, thread))
        return worker, thread, ended

    classes = {"failing": "failing_source:Source"}
    with distribution(tmp_path, "failing", {"tieline.sources": classes}, {"failing_source": PLUGINS}):
        yield run
        for worker, thread in started:
            worker.interrupt()
            thread.join(10)
            assert not thread.is_alive()


def until(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_a_failed_task_works_again_long_before_the_worker_looks_at_its_progress(run, tmp_path):
    worker, thread, ended = run(failures="5", progress="3600000")
    until(lambda: worker.ledger()["in"]["delivered"] == 1)
    ledger = worker.ledger()["in"]
    assert (ledger["state"], ledger["counters"]["restarts"], ledger["attempts"]) == ("RUNNING", 5, 0)
    worker.interrupt()
    thread.join(10)
    assert ended == [True]


def test_a_worker_does_not_end_while_a_breaker_has_a_timer_and_its_status_says_so_at_once(run, tmp_path):
    worker, thread, _ = run(failures="9", progress="3600000")
    until(lambda: worker.ledger()["in"]["state"] == "FAILED")

    def written():
        ((status,),) = [list(statuses(tmp_path / "data"))]
        return status["connectors"]["in"]

    until(lambda: written()["state"] == "FAILED")
    assert (written()["breaker"], written()["attempts"]) == ("open", 5)
    in_1800_s = time.time() * 1000 + 1_800_000
    assert in_1800_s - 60_000 < written()["next_attempt_ms"] < in_1800_s + 3_600_000
    assert thread.is_alive()


def test_a_worker_whose_failed_tasks_no_restart_helps_ends(run):
    worker, thread, ended = run(hopeless="true")
    thread.join(10)
    assert ended == [False]
    ledger = worker.ledger()["in"]
    assert (ledger["state"], ledger["attempts"], ledger["next_attempt_ms"]) == ("FAILED", 0, None)


def test_a_worker_whose_breakers_only_an_operator_closes_ends(run):
    worker, thread, ended = run(failures="9", restart_breaker_ms="-1")
    thread.join(10)
    assert ended == [False]
    assert worker.ledger()["in"]["counters"]["restarts"] == 5


def test_without_restarts_a_failed_task_ends_the_worker(run):
    worker, thread, ended = run(failures="1", restart_enabled="false")
    thread.join(10)
    assert ended == [False]
    assert worker.ledger()["in"]["counters"].get("restarts", 0) == 0
