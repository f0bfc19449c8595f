"""``tieline offsets`` on a local log, in this process."""

import datetime as dt
import json
import os

import pytest

from tieline.api import TopicPartition
from tieline.broker.local.log import LocalLog
from tieline.broker.records import ProducerRecord
from tieline.cli.commands.offsets import list_offsets, reset_offsets, set_offsets
from tieline.control.offsets import OffsetsRefusedError, OffsetTarget, refuse_if_worker_runs
from tieline.runtime.worker.status_file import StatusFile

AT = TopicPartition("t", 0)
SINK = {"topic": "t", "partition": 0, "first": 0, "end": 5}
FILE = '{"filename":"in.txt"}'


@pytest.fixture
def data(tmp_path):
    """The folder of a worker that has stopped: a sink ``out``, a source ``in``."""
    with LocalLog.open(tmp_path / "data").store as store:
        store.append([ProducerRecord("t", b"%d" % n) for n in range(5)])
        store.commit("connect-out", {AT: 3})
        store.save_source_offsets("in", {FILE: '{"position":10}'})
    return tmp_path / "data"


def lines(capfd):
    return [json.loads(line) for line in capfd.readouterr().out.splitlines()]


def committed(data):
    log = LocalLog.open(data)
    try:
        return log.store.committed("connect-out"), log.source_offsets("in", 1.0)
    finally:
        log.close()


def test_all_connectors_are_listed_also_while_a_worker_runs(data, capfd):
    running = LocalLog.open(data)
    list_offsets(data_dir=data, as_json=True)
    running.close()
    assert lines(capfd) == [
        {"connector": "out", "type": "sink", **SINK, "committed": 3, "lag": 2},
        {"connector": "in", "type": "source", "partition": json.loads(FILE), "offset": {"position": 10}},
    ]


def test_a_dry_run_shows_what_would_change_and_changes_nothing(data, capfd):
    running = LocalLog.open(data)
    set_offsets("out", "latest", data_dir=data, dry_run=True, as_json=True)
    running.close()
    assert lines(capfd) == [
        {
            "connector": "out",
            **SINK,
            "before": 3,
            "after": 5,
            "effect": "passes over 2 offset(s)",
            "changed": False,
        },
    ]
    assert committed(data)[0] == {AT: 3}


def test_a_sink_is_set_and_the_change_is_shown(data, capfd):
    set_offsets("out", "1", data_dir=data, topic=["t"], partition=["0"])
    shown = capfd.readouterr()
    assert "reads 2 offset(s) again" in shown.out
    assert "the offsets of out are set" in shown.err
    assert committed(data)[0] == {AT: 1}


def test_while_a_worker_runs_nothing_is_changed_and_its_pid_is_named(data):
    running = LocalLog.open(data)
    refused = rf"process {os.getpid()}\. Stop that process, and repeat this"
    with pytest.raises(OffsetsRefusedError, match=refused):
        set_offsets("out", "0", data_dir=data)
    with pytest.raises(OffsetsRefusedError, match=refused):
        reset_offsets("out", data_dir=data)
    running.close()
    assert committed(data)[0] == {AT: 3}


def test_a_source_that_runs_on_kafka_is_known_by_what_its_worker_writes_down(tmp_path):
    status = StatusFile(tmp_path / "data")
    status.write({"pid": 4711, "connectors": {"in": {}}})
    with pytest.raises(OffsetsRefusedError, match=r"it is running, in process 4711\. Stop its worker"):
        refuse_if_worker_runs("in", tmp_path / "data")
    refuse_if_worker_runs("another", tmp_path / "data")
    status.close()
    refuse_if_worker_runs("in", tmp_path / "data")


def test_a_source_is_set_and_reset_with_json(data, capfd):
    set_offsets("in", '{"position": 4}', data_dir=data, partition=['{"filename": "in.txt"}'], as_json=True)
    assert lines(capfd)[0]["before"] == {"position": 10}
    assert committed(data)[1] == {FILE: '{"position":4}'}
    reset_offsets("in", data_dir=data)
    assert committed(data) == ({AT: 3}, {})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: set_offsets("out", "6", data_dir=d), "its next record gets 5"),
        (lambda d: set_offsets("out", "-1", data_dir=d), "is not a target for offsets"),
        (lambda d: set_offsets("out", "9" * 30, data_dir=d), "is too large"),
        (lambda d: set_offsets("out", "soon", data_dir=d), "known forms are earliest, latest"),
        (lambda d: set_offsets("out", "earliest", data_dir=d, partition=["x"]), "a number from 0 on"),
        (lambda d: set_offsets("out", "earliest", data_dir=d, partition=["9" * 30]), "a number from 0 on"),
        (lambda d: set_offsets("out", "earliest", data_dir=d, topic=["u"]), "there is no topic u"),
        (lambda d: set_offsets("outt", "earliest", data_dir=d), "has no committed offset yet"),
        (lambda d: set_offsets("in", "earliest", data_dir=d), "in is a source; give --partition and --to"),
        (lambda d: set_offsets("in", "3", data_dir=d, partition=[FILE]), "flat JSON objects"),
        (lambda d: set_offsets("in", "{", data_dir=d, partition=[FILE]), "--to: not JSON"),
        (lambda d: reset_offsets("outt", data_dir=d), r"did you mean out\? .*in \(source\), out \(sink\)"),
        (
            lambda d: reset_offsets("out", data_dir=d, partition=["0"]),
            "tieline offsets set out --partition 0",
        ),
        (lambda d: list_offsets("outt", data_dir=d), "did you mean out"),
    ],
)
def test_an_impossible_change_is_rejected_with_the_fix_and_changes_nothing(data, change, message):
    before = committed(data)
    with pytest.raises(OffsetsRefusedError, match=message):
        change(data)
    assert committed(data) == before


def test_times_are_read_as_people_write_them():
    now = dt.datetime(2026, 1, 31, 12, tzinfo=dt.timezone.utc)
    noon = int(now.timestamp() * 1000)
    assert OffsetTarget.parse("2h", now) == OffsetTarget("time", noon - 7_200_000)
    assert OffsetTarget.parse("2026-01-31T13:00:00+01:00", now) == OffsetTarget("time", noon)
    assert OffsetTarget.parse("2026-01-31", now) == OffsetTarget("time", noon - 12 * 3_600_000)


REPLAYS = TopicPartition("tieline-replay-out", 0)


@pytest.fixture
def replayed(data):
    """The same folder, after three letters were replayed to the sink."""
    with LocalLog.open(data).store as store:
        store.append([ProducerRecord(REPLAYS.topic, b"%d" % n) for n in range(3)])
        store.commit("connect-out", {REPLAYS: 3})
    return data


def test_a_reset_does_not_read_again_what_was_replayed(replayed, capfd):
    reset_offsets("out", data_dir=replayed, as_json=True)
    assert [line["topic"] for line in lines(capfd)] == ["t"]
    assert committed(replayed)[0] == {REPLAYS: 3}


def test_offsets_of_replays_are_set_only_by_name(replayed):
    set_offsets("out", "latest", data_dir=replayed)
    assert committed(replayed)[0] == {AT: 5, REPLAYS: 3}
    set_offsets("out", "earliest", data_dir=replayed, topic=[REPLAYS.topic])
    assert committed(replayed)[0] == {AT: 5, REPLAYS: 0}
