"""One connector of a worker: what its ledger says while its tasks run, and after they have ended."""

import threading
from types import SimpleNamespace
from typing import Any

import pytest

from tieline.api import Config, SinkConnector, SinkTask
from tieline.config.settings import SinkSettings
from tieline.runtime.errors.retry import TaskFailedError
from tieline.runtime.task.ledger import Counts
from tieline.runtime.worker.connector import RunningConnector


class Task(SinkTask[Config]):
    def put(self, records):
        pass


class Connector(SinkConnector[Config]):
    task_type = Task


class Runner:
    """Knows a lag of 0 from its first look, as a sink that has read all; ends when it is told to."""

    counts = Counts()
    lag = 0

    def __init__(self):
        self.end = threading.Event()
        self.error = None

    def run(self, subscription):
        self.end.wait(10)
        if self.error:
            raise self.error

    def interrupt(self):
        self.end.set()


@pytest.fixture
def runners():
    return [Runner(), Runner()]


@pytest.fixture
def connector(runners):
    settings = SinkSettings.parse({"name": "out", "connector.class": "x", "topics": "t", "tasks.max": "2"})
    plan: Any = SimpleNamespace(name="out", connector=Connector, config=None, settings=settings, own={})
    left = iter(runners)
    parts: Any = SimpleNamespace(sink=lambda plan, task, own, environment: next(left))
    found = RunningConnector(plan, parts)
    found.prepare()
    yield found
    found.interrupt()


def test_the_lag_of_a_sink_is_unknown_before_its_tasks_start(connector):
    assert connector.ledger()["lag"] is None


def test_the_lag_of_a_sink_is_unknown_once_one_of_its_tasks_has_failed(connector, runners):
    connector.start()
    assert connector.ledger()["lag"] == 0
    runners[0].error = TaskFailedError("a record that cannot be handled")
    runners[0].end.set()
    assert connector.threads[0].join(10)
    found = connector.ledger()
    assert (found["state"], found["lag"]) == ("FAILED", None)


def test_the_lag_of_a_sink_is_unknown_if_the_connector_failed_at_its_start(connector):
    class Failing(Connector):
        def start(self):
            raise ValueError("no")

    connector.plan.connector = Failing
    no_parts: Any = SimpleNamespace()
    failed = RunningConnector(connector.plan, no_parts)
    failed.prepare()
    found = failed.ledger()
    assert (found["state"], found["lag"]) == ("FAILED", None)
