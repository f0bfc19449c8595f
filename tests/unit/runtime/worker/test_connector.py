"""One connector of a worker: what its ledger says while its tasks run, and after they have ended."""

import dataclasses
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tieline.api import Config, SinkConnector, SinkTask, SourceConnector, SourceRecord, SourceTask
from tieline.broker.local.log import LocalLog
from tieline.config.planned import ConverterPlan, SinkPlan, SourcePlan
from tieline.config.settings import SinkSettings, SourceSettings, Timing
from tieline.converters.plain import StringConverter
from tieline.logs import Redaction
from tieline.runtime.errors.retry_state import TaskFailedError
from tieline.runtime.task.ledger import Counts
from tieline.runtime.task.totals import PartitionView, Totals
from tieline.runtime.worker.connector import RunningConnector
from tieline.runtime.worker.factory import TaskFactory


class Task(SinkTask[Config]):
    def put(self, records):
        pass


class Connector(SinkConnector[Config]):
    task_type = Task


class Runner:
    """Knows a lag of 0 from its first look, as a sink that has read all; ends when it is interrupted."""

    stats = Counts()
    lag = 0
    lag_seconds = 0.0
    totals: dict[Any, Any] = {}

    def __init__(self):
        self.end = threading.Event()
        self.error = None

    def run(self):
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
    text = ConverterPlan(StringConverter, StringConverter.config_type.parse({}), {})
    plan = SinkPlan(Config.parse({}), {}, text, text, [], {}, settings, Connector)
    supply = iter(runners)  # a test may append further ones
    factory: Any = SimpleNamespace(
        data_dir=Path("data"), sink=lambda plan, task, settings, environment: next(supply)
    )
    running = RunningConnector(plan, factory)
    running.prepare()
    yield running
    running.interrupt()


def test_the_lag_of_a_sink_is_unknown_before_its_tasks_start(connector):
    assert connector.ledger()["lag"] is None


def test_the_lag_of_a_sink_is_unknown_once_one_of_its_tasks_has_failed(connector, runners):
    connector.start()
    ledger = connector.ledger()
    assert (ledger["lag"], ledger["lag_seconds"], ledger["mismatch"], ledger["topics"]) == (0, 0.0, 0, {})
    runners[0].error = TaskFailedError("a record that cannot be handled", restart_helps=False)
    runners[0].end.set()
    assert connector.threads[0].join(10)
    ledger = connector.ledger()
    assert (ledger["state"], ledger["lag"], ledger["lag_seconds"]) == ("FAILED", None, None)


def test_the_lag_of_a_sink_is_unknown_if_the_connector_failed_at_its_start(connector):
    class Failing(Connector):
        def start(self):
            raise ValueError("no")

    no_factory: Any = SimpleNamespace(data_dir=Path("data"))
    failed = RunningConnector(dataclasses.replace(connector.plan, connector=Failing), no_factory)
    failed.prepare()
    ledger = failed.ledger()
    assert (ledger["state"], ledger["lag"]) == ("RESTARTING", None)


def test_the_totals_of_a_source_are_those_of_the_task_that_is_further_for_each_partition(connector, runners):
    def view(delivered, in_flight=0, mismatch=0):
        totals = Totals(5, 0, received=delivered, delivered=delivered)
        return PartitionView(totals, None, in_flight, mismatch)

    connector.type = "source"
    assert "totals" not in connector.ledger()
    first, second = runners  # each has loaded all partitions of the connector
    first.totals = {"a": view(7, 2), "b": view(3)}
    second.totals = {"a": view(4), "b": view(3, 1, 1)}
    ledger = connector.ledger()
    assert ledger["totals"] == {
        "since": 5,
        "received": 13,
        "delivered": 10,
        "dead_lettered": 0,
        "filtered": 0,
        "in_flight": 3,
        "skipped": 0,
        "mismatch": 1,
    }
    assert ledger["mismatch"] == 1


def test_a_task_that_failed_is_rebuilt_while_the_others_run_and_its_totals_continue(connector, runners):
    first, second = connector.threads
    connector.start()
    runners[0].stats = Counts(10, 7, 0, 1, 2)
    runners[0].error = TaskFailedError("a record that cannot be handled", restart_helps=False)
    runners[0].end.set()
    assert first.join(10)
    with pytest.raises(RuntimeError, match="still runs"):
        connector.rebuild(second)
    rebuilt = Runner()
    runners.append(rebuilt)
    connector.rebuild(first)
    assert (connector.state, first.trace) == ("RUNNING", None)
    rebuilt.stats = Counts(3, 1, 0, 0, 2)
    ledger = connector.ledger()
    assert [ledger[name] for name in Counts._fields] == [11, 8, 0, 1, 2]  # the two in flight came again
    assert second.state == "RUNNING"
    assert not runners[1].end.is_set()


LAST = 600


class Counting(SourceTask[Config]):
    """Counts from 1 to LAST; fails after a number, if there is one."""

    replayable = False
    fails_after: list[int] = []

    def start(self):
        self.count = 0

    def poll(self, max_records, max_wait):
        if self.count in self.fails_after:
            self.fails_after.remove(self.count)
            raise KeyError("a bug at this number")
        if self.count == LAST:
            time.sleep(max_wait)
            return []
        self.count += 1
        return [SourceRecord("t", str(self.count))]


class CountingSource(SourceConnector[Config]):
    task_type = Counting


class Unusable(StringConverter):
    """Raises what is in ``errors``, one for each batch."""

    errors: list[Exception] = []

    def serialize(self, batch):
        if self.errors:
            raise self.errors.pop()
        return super().serialize(batch)


@pytest.fixture
def spooled(tmp_path):
    log = LocalLog.open(tmp_path / "log")
    settings = SourceSettings.parse({"name": "in", "connector.class": "x", "restart.enabled": "false"})
    text = ConverterPlan(StringConverter, StringConverter.config_type.parse({}), {})
    value = ConverterPlan(Unusable, Unusable.config_type.parse({}), {})
    plan = SourcePlan(Config.parse({}), {}, text, value, [], {}, settings, CountingSource)
    factory = TaskFactory(log, Timing(0.05, 10, 0.01, 1.0, 1.0), tmp_path)
    running = RunningConnector(plan, factory)
    yield running, log
    running.interrupt()
    for thread in running.threads:
        assert thread.join(10)
    running.close()
    log.close()


def delivered(log):
    return [record.value.decode() for record in log.store.read_from("t", 0, 0, 100_000)]


def wait_for(condition):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_connector_whose_receiver_failed_is_failed_and_ends_once_its_spool_is_empty(
    spooled, monkeypatch, caplog
):
    monkeypatch.setattr(Counting, "fails_after", [500])
    connector, log = spooled
    connector.prepare()
    connector.start()
    receiver, pump = connector.threads
    assert receiver.join(10)
    assert connector.state == "FAILED"
    assert pump.join(10)
    assert (pump.state, connector.running, connector.state) == ("STOPPED", False, "FAILED")
    assert delivered(log) == [str(n) for n in range(1, 501)]
    assert connector.ledger()["spool_records"] == 0


def test_the_trace_of_an_unexpected_error_is_its_sentence_and_its_traceback_without_secrets(
    spooled, monkeypatch, caplog
):
    monkeypatch.setattr(Counting, "fails_after", [3])
    redaction = Redaction()
    redaction.add(["a bug at this"])
    monkeypatch.setattr("tieline.runtime.worker.task_thread.redaction", redaction)
    connector, _ = spooled
    connector.prepare()
    connector.start()
    assert connector.threads[0].join(10)
    sentence, traceback = connector.ledger()["trace"].split("\n", 1)
    assert sentence == ("TASK_POLL: KeyError: '******** number' (an error that the connector did not handle)")
    assert traceback.startswith("Traceback (most recent call last):")
    assert "in poll" in traceback
    assert traceback.endswith("KeyError: '******** number'")
    (record,) = [r for r in caplog.records if r.message.startswith("the task failed")]
    assert record.exc_info[0] is KeyError


def test_a_receiver_is_rebuilt_with_the_pump_that_ended_behind_it(spooled, monkeypatch):
    monkeypatch.setattr(Counting, "fails_after", [100, 200])
    connector, log = spooled
    connector.prepare()
    connector.start()
    receiver, pump = connector.threads
    for _ in range(2):
        assert receiver.join(10)
        assert pump.join(10)
        connector.rebuild(receiver)
        assert connector.state == "RUNNING"
    total = 100 + 200 + LAST
    wait_for(lambda: connector.ledger()["delivered"] == total)
    ledger = connector.ledger()
    assert ledger["counters"]["spooled"] == ledger["received"] == len(delivered(log)) == total
    wait_for(lambda: connector.ledger()["totals"]["delivered"] == total)
    ledger = connector.ledger()
    assert (ledger["totals"]["received"], ledger["totals"]["in_flight"], ledger["mismatch"]) == (total, 0, 0)
    assert ledger["spool_age_seconds"] == 0.0


def test_a_pump_is_rebuilt_without_its_receiver_and_delivers_what_was_received_meanwhile(
    spooled, monkeypatch
):
    monkeypatch.setattr(Unusable, "errors", [ValueError("a bug in the converter")])
    connector, log = spooled
    connector.prepare()
    connector.start()
    pump = connector.threads[1]
    assert pump.join(10)
    assert (connector.state, connector.running) == ("FAILED", True)
    wait_for(lambda: connector.ledger()["counters"].get("spooled") == LAST)
    connector.rebuild(pump)
    assert connector.state == "RUNNING"
    wait_for(lambda: connector.ledger()["delivered"] == LAST)
    assert delivered(log) == [str(n) for n in range(1, LAST + 1)]
    ledger = connector.ledger()
    assert (ledger["received"], ledger["in_flight"]) == (LAST, 0)
