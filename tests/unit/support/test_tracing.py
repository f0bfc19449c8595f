"""What is found of one record: in a spool, topics, dead letters, values that name it, and a store."""

import json
from contextlib import closing

import pytest
from typer.testing import CliRunner

from tieline.api import SinkRecord, SourceRecord, identity
from tieline.broker.local.log import LocalLog
from tieline.broker.records import ProducerRecord
from tieline.cli.command_context import WorkerCommandContext
from tieline.cli.main import app
from tieline.dead_letters.letter import Cause, DeadLetter, consumed_id
from tieline.dead_letters.record import letter_record
from tieline.runtime.spool.spool import Limits, Spool
from tieline.runtime.task.clock import Counters
from tieline.support.tracing import Trace, trace_spools, trace_topics


@pytest.fixture
def log(tmp_path):
    with closing(LocalLog.open(tmp_path / "data")) as log:
        yield log


def traced(log, record_id, topics):
    trace = Trace(record_id)
    read: list[int] = []
    trace_topics(trace, log, topics, 0, read.append, 20)
    return trace, sum(read)


def id_of(headers):
    return (dict(headers)["tieline.id"] or b"").decode()


def places(trace):
    return [(s.place, s.state, s.details.get("offset")) for s in trace.sightings]


def write(log, topic, value, headers=(), key=None):
    log.create_topic(topic)
    log.store.append([ProducerRecord(topic, value, key, headers)])


def test_a_record_that_waits_in_a_spool_is_found_with_its_position(tmp_path):
    path = tmp_path / "spools" / "bus-0.db"
    with closing(Spool(path, Limits(1 << 20, True, 1 << 20), Counters())) as spool:
        spool.append([SourceRecord("t", {"n": 0}), SourceRecord("t", {"n": 1}, headers=identity("a"))])
        spool.append([SourceRecord("t", {"n": 2})])
        wanted = id_of(identity("a"))
        unnamed = id_of(identity(spool.id, 2))
    for record_id, position in ((wanted, 1), (unnamed, 2)):
        trace = Trace(record_id)
        trace_spools(trace, tmp_path / "spools")
        [sighting] = trace.sightings
        assert (sighting.place, sighting.state) == ("the spool bus-0", "waits for the broker")
        assert sighting.details == {"position": position, "before_it": position}
    trace = Trace("another")
    trace_spools(trace, tmp_path / "spools")
    assert (trace.sightings, trace.looked) == ([], ["the spool bus-0"])


def test_a_record_its_repetition_its_dead_letter_and_what_names_it_are_found(log):
    headers = identity("a")
    record_id = id_of(headers)
    write(log, "other", b"x")
    for _ in range(2):
        write(log, "readings", b"{}", headers)
    letter = DeadLetter(
        consumed_id("sink", "readings", 0, 0), "readings", 0, 0, b"{}", None, headers, 5,
        Cause("TASK_PUT", "tieline.api.DataError", "no"), connector="sink",
    )  # fmt: skip
    log.create_topic("letters")
    log.store.append([letter_record(letter, "letters")])
    write(log, "answers", json.dumps({"about": record_id}).encode())
    trace, read = traced(log, record_id, ["other", "readings", "letters", "answers"])
    assert places(trace) == [
        ("the topic readings", "written", 0),
        ("the topic readings", "written", 1),
        ("the topic letters", "dead letter", 0),
        ("the topic answers", "named by another record", 0),
    ]
    assert trace.sightings[2].details["stage"] == "TASK_PUT"
    assert read == 5
    assert trace.looked == [f"the topic {name}" for name in ("other", "readings", "letters", "answers")]


def test_a_short_id_is_not_searched_for_in_values(log):
    write(log, "t", b"the id 42 is everywhere")
    assert traced(log, "42", ["t"])[0].sightings == []


def test_a_topic_that_cannot_be_read_is_named_with_the_reason(log):
    write(log, "t", b"x")
    trace = Trace("some-record-id")
    trace_topics(trace, log, ["t"], 0, lambda number: None, 0)
    assert list(trace.unavailable) == ["the topic t"]
    assert "set --timeout or --since" in trace.unavailable["the topic t"]


def reading(number):
    value = {
        "platform": "p", "topic": "devices/d/all", "device": "d", "kind": "ALL", "sender": "s", "headers": {},
        "time": number * 1_000_000, "time_source": "TIMESTAMP", "received": number, "points": {"n": 1},
        "metadata": {},
    }  # fmt: skip
    return SinkRecord("readings", 0, number, value, headers=identity(number, digest_of=b"x"))


@pytest.fixture
def files(tmp_path, log, new_history):
    """A worker's file and that of a history sink which has stored one record."""
    record = reading(1)
    new_history(tmp_path / "data").put([record])
    write(log, "readings", b"{}", record.headers)
    (tmp_path / "worker.json").write_text(json.dumps({"data.dir": str(tmp_path / "data")}))
    sink = {"name": "history", "connector.class": "history", "topics": "readings"}
    (tmp_path / "history.json").write_text(json.dumps(sink))
    return ["--worker", str(tmp_path / "worker.json"), "--connector-file", str(tmp_path / "history.json")]


@pytest.fixture
def new_history():
    from tieline.testing.sink_context import RecordingSinkContext
    from tieline_connectors.history.config import HistorySinkConfig
    from tieline_connectors.history.sink import HistorySinkTask

    tasks = []

    def new(folder):
        context = RecordingSinkContext(data_dir=folder)
        tasks.append(HistorySinkTask(context, HistorySinkConfig.parse({"retention.ms": "-1"})))
        tasks[-1].start()
        return tasks[-1]

    yield new
    for task in tasks:
        task.stop()


def test_the_program_finds_a_record_by_its_position_in_topic_and_store(files, log):
    arguments = ["trace", "--topic", "readings", "--partition", "0", "--offset", "0", *files]
    result = CliRunner().invoke(app, arguments, obj=WorkerCommandContext())
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["record_id"] == id_of(reading(1).headers)
    states = [(sighting["place"].split(" ")[1], sighting["state"]) for sighting in found["sightings"]]
    assert states == [("topic", "written"), ("history", "stored")]
    assert found["unavailable"] == {}


def test_the_program_says_that_a_record_was_found_nowhere(files, log):
    result = CliRunner().invoke(app, ["trace", "an-unknown-id", *files], obj=WorkerCommandContext())
    assert result.exit_code == 3
    found = json.loads(result.stdout)
    assert (found["sightings"], len(found["looked"])) == ([], 2)
