"""A worker whose tasks fail and restart: each record arrives, whatever fails meanwhile."""

import os
from collections import Counter
from pathlib import Path

import pytest

from tieline.broker.local.log import LocalLog
from tieline.plugins.unpackaged import write_entry_points
from tieline.testing.worker_process import WorkerProcess

LAST = 600
MODULE = '''
"""Counts to LAST. How often something fails is in files, so that it survives a kill."""

import os
import time
from pathlib import Path

from tieline.api import Config, SinkConnector, SinkTask, SourceConnector, SourceRecord, SourceTask, Transform

HERE = Path(os.environ["RESTARTS_FOLDER"])
LAST = int(os.environ["RESTARTS_LAST"])


class Count(SourceTask[Config]):
    """Fails after each 100th number, as often as there are lines in a file."""

    replayable = True

    def __init__(self, context, config):
        self.context = context

    def start(self):
        offset = self.context.offset({"of": "count"})
        self.count = 0 if offset is None else offset["n"]

    def poll(self, max_records, max_wait):
        failures = HERE / "failures"
        left = failures.read_text().splitlines()
        if left and self.count and self.count % 100 == 0:
            failures.write_text("".join(f"{line}\\n" for line in left[1:]))
            raise KeyError("a bug")
        if self.count == LAST:
            time.sleep(max_wait)
            return []
        self.count += 1
        position = {"source_partition": {"of": "count"}, "source_offset": {"n": self.count}}
        return [SourceRecord("t", str(self.count), **position)]


class Ticks(SourceTask[Config]):
    """Receives a number every 2 ms. What was returned before is in the spool at the next poll."""

    replayable = False

    def start(self):
        place = HERE / "ticks"
        self.count = int(place.read_text()) if place.exists() else 0

    def poll(self, max_records, max_wait):
        new = HERE / "ticks.new"
        new.write_text(str(self.count))
        new.replace(HERE / "ticks")
        if self.count == LAST:
            time.sleep(max_wait)
            return []
        time.sleep(0.002)
        self.count += 1
        return [SourceRecord("t", str(self.count))]


class Append(SinkTask[Config]):
    """Appends values to a file; fails while there is another one."""

    def __init__(self, context, config):
        pass

    def put(self, records):
        if (HERE / "broken").exists():
            raise RuntimeError("a bug in the sink")
        with (HERE / "out").open("a") as out:
            out.writelines(f"{record.value}\\n" for record in records)


class AppendSink(SinkConnector[Config]):
    task_type = Append


class CountSource(SourceConnector[Config]):
    task_type = Count


class TicksSource(SourceConnector[Config]):
    task_type = Ticks


class Brittle(Transform[Config]):
    """Fails while there is a file."""

    def apply(self, batch):
        if (HERE / "broken").exists():
            raise RuntimeError("a bug in the transform")
        return batch
'''


@pytest.fixture
def worker(tmp_path):
    plugin = tmp_path / "plugin"
    groups = {
        "tieline.sources": {"count": "restarting:CountSource", "ticks": "restarting:TicksSource"},
        "tieline.sinks": {"append": "restarting:AppendSink"},
        "tieline.transforms": {"brittle": "restarting:Brittle"},
    }
    write_entry_points(plugin, "restarting", groups)
    (plugin / "restarting.py").write_text(MODULE)
    environment = {
        "PYTHONPATH": os.pathsep.join([str(plugin), os.environ.get("PYTHONPATH", "")]),
        "RESTARTS_FOLDER": str(tmp_path),
        "RESTARTS_LAST": str(LAST),
    }

    def worker(*others, backend=None, **settings):
        connector = {
            "name": "in",
            "value.converter": "string",
            "restart.backoff.initial.ms": "20",
            "restart.backoff.max.ms": "100",
            "restart.budget": "1000",
            **{key.replace("_", "."): value for key, value in settings.items()},
        }
        return WorkerProcess(tmp_path, backend or {}, [connector, *others], environment=environment)

    return worker


def values(folder: Path):
    log = LocalLog.open(folder / "data")
    try:
        return [int(record.value or b"0") for record in log.store.read_from("t", 0, 0, 100_000)]
    finally:
        log.close()


def adds_up(ledger):
    parts = ("delivered", "dead_lettered", "filtered", "in_flight")
    return ledger["received"] == sum(ledger[name] for name in parts)


def test_a_source_that_fails_five_times_delivers_each_record_once(worker, tmp_path):
    (tmp_path / "failures").write_text("once more\n" * 5)
    with worker(connector_class="count") as process:
        ledger = process.wait_for_ledger(lambda ledger: ledger["in"]["delivered"] == LAST)["in"]
        assert process.stop() == 0
    assert (ledger["state"], ledger["counters"]["restarts"], ledger["attempts"]) == ("RUNNING", 5, 0)
    assert (ledger["received"], ledger["in_flight"]) == (LAST, 0)
    assert values(tmp_path) == list(range(1, LAST + 1))
    failed = [event for event in process.events if str(event.get("event")).startswith("the task failed")]
    assert [event["state"] for event in failed] == ["RESTARTING"] * 5
    assert all("KeyError" in event["event"] for event in failed)


def test_a_pump_that_fails_again_and_again_does_not_stop_reception_and_a_kill_meanwhile_loses_nothing(
    worker, tmp_path
):
    (tmp_path / "broken").touch()
    with worker(connector_class="ticks", transforms="brittle", transforms_brittle_type="brittle") as process:
        for _ in range(2):
            ledger = process.wait_for_ledger(
                lambda ledger: (
                    ledger["in"]["counters"].get("restarts", 0) >= 3
                    and ledger["in"]["counters"].get("spooled", 0) >= 100
                )
            )["in"]
            assert ledger["delivered"] == 0
            assert adds_up(ledger)
            process.kill()
            process.start()
        assert int((tmp_path / "ticks").read_text()) >= 199  # both runs have received
        (tmp_path / "broken").unlink()
        process.wait_for_ledger(
            lambda ledger: (
                ledger["in"]["spool_records"] == 0
                and ledger["in"]["state"] == "RUNNING"
                and (tmp_path / "ticks").read_text() == str(LAST)
            )
        )
        assert process.stop() == 0
    ledger = process.last_ledger["in"]
    assert adds_up(ledger)
    assert (ledger["in_flight"], ledger["dead_lettered"], ledger["filtered"]) == (0, 0, 0)
    arrived = values(tmp_path)
    counted = Counter(arrived)
    assert sorted(counted) == list(range(1, LAST + 1))
    assert arrived == sorted(arrived)
    assert len(arrived) - LAST <= 2  # the number that each kill may have made the source count again
    assert ledger["received"] == ledger["delivered"] == len(arrived)


def test_a_sink_that_fails_again_and_again_rejoins_its_group_and_writes_each_record_once(
    worker, tmp_path, backend
):
    (tmp_path / "broken").touch()
    (tmp_path / "in.txt").write_text("".join(f"{n}\n" for n in range(40)))
    topic, sink = f"lines-{backend.suffix}", f"out-{backend.suffix}"
    lines = {"name": "lines", "connector.class": "file", "file": str(tmp_path / "in.txt"), "topic": topic}
    lines["value.converter"] = "string"
    settings = {"name": sink, "connector_class": "append", "topics": topic}
    with worker(lines, backend=backend.worker, **settings) as process:
        ledger = process.wait_for_ledger(lambda ledger: ledger[sink]["counters"].get("restarts", 0) >= 3)
        assert (ledger[sink]["delivered"], ledger["lines"]["state"]) == (0, "RUNNING")
        assert ledger[sink]["attempts"] >= 3
        (tmp_path / "broken").unlink()
        ledger = process.wait_for_ledger(lambda ledger: ledger[sink]["delivered"] == 40)[sink]
        assert (ledger["state"], ledger["attempts"], ledger["in_flight"]) == ("RUNNING", 0, 0)
        assert adds_up(ledger)
        assert process.stop() == 0
    assert (tmp_path / "out").read_text() == (tmp_path / "in.txt").read_text()
