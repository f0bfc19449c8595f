"""``tieline dlq`` on a local log, in this process."""

from __future__ import annotations

import json
import os
import socket
from dataclasses import replace as replaced
from typing import Any

import pytest
import typer

from tieline.api import ID_HEADER, Schema, SourceRecord, StartupError, TopicPartition
from tieline.broker.internal import replay_topic
from tieline.broker.local.log import LocalLog
from tieline.broker.records import ProducerRecord
from tieline.cli.commands.consume import View
from tieline.cli.commands.dlq import cancel, drop, list_jobs, list_letters, replay, show
from tieline.converters.plain import StringConverter, StringConverterConfig
from tieline.dead_letters.jobs import RUNNING, Job, job_record
from tieline.dead_letters.letter import Cause, DeadLetter, consumed_id, source_id
from tieline.dead_letters.record import letter_record
from tieline.dead_letters.source_record import source_form
from tieline.registry.schema_topic import TopicSchemaStore
from tieline.runtime.sink.conversion import SinkConversion
from tieline.runtime.task.transform_chain import TransformChain
from tieline.topics.dead_letters.replay import Replay

NOW = 1_700_000_000_000
REPLAYS = replay_topic("store")


def letter(number, **changes):
    cause = Cause(
        "VALUE_CONVERTER",
        "ValueError",
        f"line {number} is not JSON",
        field="a.b",
        expected="JSON",
        fix="Repair it",
    )
    fields = {
        "id": consumed_id("store", "bus", 0, number),
        "topic": "bus",
        "partition": 0,
        "offset": number,
        "value": b"v%d" % number,
        "key": b"k",
        "headers": (("own", b"1"),),
        "timestamp": NOW,
        "cause": cause,
        "connector": "store",
        "task": 0,
        "failed_at": NOW + number,
    }
    return DeadLetter(**{**fields, **changes})


def write(folder, *letters):
    log = LocalLog.open(folder, owner=False)
    try:
        log.store.append([letter_record(each, "dead") for each in letters])
    finally:
        log.close()


def topic(folder, name):
    log = LocalLog.open(folder, owner=False)
    records: list[Any] = []
    try:
        log.read(name, records.append)
    finally:
        log.close()
    return records


def commit(folder, offset, group="connect-store", name=REPLAYS):
    log = LocalLog.open(folder)
    try:
        log.store.commit(group, {TopicPartition(name, 0): offset})
    finally:
        log.close()


@pytest.fixture
def data(tmp_path):
    """The local log of a stopped worker, with an empty topic of dead letters."""
    log = LocalLog.open(tmp_path / "data")
    for name in ("dead", "bus", "other"):
        log.create_topic(name, partitions=1)
    log.close()
    return tmp_path / "data"


def connector(folder, **settings):
    sink = {
        "name": "store",
        "connector.class": "file",
        "file": str(folder / "out.txt"),
        "topics": "bus",
        "value.converter": "string",
        "errors.tolerance": "all",
        "errors.deadletterqueue.topic.name": "dead",
    }
    path = folder / f"{settings.get('name', 'store')}.json"
    path.write_text(json.dumps({k: v for k, v in {**sink, **settings}.items() if v is not None}))
    return path


@pytest.fixture
def sink(tmp_path):
    return [connector(tmp_path)]


def lines(capfd):
    return [json.loads(line) for line in capfd.readouterr().out.splitlines()]


def ran(capfd, *letters, code=0, **options):
    """Replay, and return the printed ledger."""
    capfd.readouterr()
    if code:
        with pytest.raises(typer.Exit) as ended:
            replay([*letters] or None, wait=0.0, rate=0.0, **options)
        assert ended.value.exit_code == code
    else:
        replay([*letters] or None, wait=0.0, rate=0.0, **options)
    return lines(capfd)[-1]


def test_causes_are_listed_with_count_times_and_an_example_in_words(data, sink, capfd):
    other = letter(7).cause._replace(error="OSError")
    write(data, letter(1), letter(2), letter(2), letter(7, cause=other))
    list_letters(data_dir=data, files=sink)
    first, second = lines(capfd)
    assert (first["count"], second["count"]) == (2, 1)
    assert (first["first"], first["last"]) == ("2023-11-14T22:13:20.001Z", "2023-11-14T22:13:20.002Z")
    assert first["text"] == (
        "the record bus-0@2 failed at VALUE_CONVERTER: line 2 is not JSON. Field: a.b. Repair it"
    )
    assert first["example"] == {"letter": "0@1", "id": "store:bus-0@2"}


def test_a_letter_is_shown_with_its_content_cause_and_headers(data, sink, capfd):
    write(data, letter(1))
    show(["0@0"], data_dir=data, files=sink)
    (shown,) = lines(capfd)
    assert (shown["value"], shown["key"], shown["record"]) == ("v1", "k", "bus-0@1")
    assert shown["headers"] == [["own", "1"]]
    assert shown["message"] == "line 1 is not JSON"


def test_a_letter_of_kafka_connect_is_shown(data, capfd):
    log = LocalLog.open(data)
    prefix = "__connect.errors."
    names = {
        "topic": "bus", "partition": "3", "offset": "12", "connector.name": "jdbc", "task.id": "0",
        "stage": "VALUE_CONVERTER", "class.name": "org.apache.kafka.connect.json.JsonConverter",
        "exception.class.name": "org.apache.kafka.connect.errors.DataException",
        "exception.message": "Converting byte[] to Kafka Connect data failed due to serialization error: ",
        "exception.stacktrace": "org.apache.kafka.connect.errors.DataException: …",
    }  # fmt: skip
    headers = tuple((prefix + name, text.encode()) for name, text in names.items())
    log.store.append([ProducerRecord("dead", b"{bad", None, headers)])
    log.close()
    show(data_dir=data, topic="dead")
    (shown,) = lines(capfd)
    assert (shown["written_by"], shown["record"], shown["value"]) == ("connect", "bus-3@12", "{bad")
    assert "headers" not in shown


def test_hostile_letters_cannot_move_the_cursor_or_fill_the_screen(data, capfd):
    log = LocalLog.open(data)
    bad = (
        ("tieline.dlq.id", b"x\x1b]0;title\x07"),
        ("tieline.dlq.headers", b"99999999999999999999"),
        ("tieline.dlq.form", b'{"value": "avro", "value_schema": "{", "key": [}'),
        ("__connect.errors.partition", b"-1"),
        ("__connect.errors.exception.message", b"\x1b[2J\xff"),
        ("a\x1b[2J", b"\x1b[2J"),
    )
    log.store.append([ProducerRecord("dead", b"\x1b[2J" + b"x" * 200_000, b"\xff\x00", bad)])
    log.close()
    for view in ("rows", "json"):
        show(data_dir=data, topic="dead", output=View(view))
        out = capfd.readouterr().out
        assert "\x1b" not in out
        assert "\x07" not in out
        assert len(out) < 150_000
    list_letters(data_dir=data, topic="dead", output=View.ROWS)
    assert "\x1b" not in capfd.readouterr().out


def test_a_replay_goes_to_the_topic_that_only_the_sink_reads_with_its_identity_kept(data, sink, capfd):
    write(data, letter(1), letter(2, headers=((ID_HEADER, b"id2"), ("own", b"1"))))
    ledger = ran(capfd, data_dir=data, files=sink, everything=True, code=1)
    assert (ledger["replayed"], ledger["remaining"], ledger["waiting"]) == (2, 2, 2)
    first, second = topic(data, REPLAYS)
    assert (first.value, first.key) == (b"v1", b"k")
    assert dict(second.headers)[ID_HEADER] == b"id2"
    assert len(dict(first.headers)[ID_HEADER]) > 32
    assert dict(first.headers)["tieline.dlq.replay.origin"] == b"bus-0@1"
    assert topic(data, "bus") == []


def test_the_sink_sees_the_first_topic_time_and_identity_of_a_replayed_record(data, sink, capfd):
    write(data, letter(1, headers=((ID_HEADER, b"id1"),)))
    ran(capfd, data_dir=data, files=sink, everything=True, code=1)
    log = LocalLog.open(data, owner=False)
    no_store: Any = None
    key, value = (
        StringConverter(StringConverterConfig.parse({}), is_key=is_key, schemas=no_store)
        for is_key in (True, False)
    )
    conversion = SinkConversion(log, TransformChain([]), key, value, replay_topic=REPLAYS)
    (record,) = conversion.convert(topic(data, REPLAYS)).records
    log.close()
    assert (record.topic, record.value, record.timestamp) == ("bus", "v1", NOW)
    assert record.consumed_from == TopicPartition(REPLAYS, 0)
    assert dict(record.headers)[ID_HEADER] == b"id1"


def test_the_ledger_counts_what_the_sink_delivered_and_what_became_a_letter_again(data, sink, capfd):
    write(data, letter(1), letter(2), letter(3))
    ran(capfd, data_dir=data, files=sink, everything=True, code=1)
    write(data, letter(2, id="store:bus-0@2#1", attempts=1, replay_of="store:bus-0@2"))
    commit(data, 2)
    ledger = ran(capfd, data_dir=data, files=sink, everything=True, code=1)
    assert {k: ledger[k] for k in ("replayed", "delivered", "dead_lettered_again", "remaining")} == {
        "replayed": 3, "delivered": 1, "dead_lettered_again": 1, "remaining": 1,
    }  # fmt: skip
    commit(data, 3)
    ledger = ran(capfd, data_dir=data, files=sink, everything=True)
    assert (ledger["delivered"], ledger["dead_lettered_again"], ledger["remaining"]) == (2, 1, 0)
    assert ledger["state"] == "done"
    assert len(topic(data, REPLAYS)) == 3
    list_letters(data_dir=data, files=sink)  # the letter that failed again is open
    assert [group["count"] for group in lines(capfd)] == [1]


def test_a_job_that_was_killed_between_record_and_mark_writes_only_the_mark(data, sink, capfd, monkeypatch):
    class Killed(BaseException):
        pass

    def die(self, outcomes):
        raise Killed

    write(data, letter(1), letter(2))
    monkeypatch.setattr(Replay, "_mark", die)
    with pytest.raises(Killed):
        replay(data_dir=data, files=sink, everything=True, wait=0.0)
    monkeypatch.undo()
    assert len(topic(data, REPLAYS)) == 2
    ledger = ran(capfd, data_dir=data, files=sink, everything=True, code=1)
    assert (ledger["replayed"], ledger["waiting"]) == (2, 2)
    assert len(topic(data, REPLAYS)) == 2


def test_letters_that_failed_too_often_are_refused(data, sink, capfd):
    write(data, letter(1, attempts=3))
    with pytest.raises(StartupError, match="every selected letter is refused"):
        replay(data_dir=data, files=sink, everything=True)
    (ledger,) = lines(capfd)
    assert ledger["refused"] == 1
    assert "3 time(s) already" in next(iter(ledger["refusals"]))


def test_commands_are_never_replayed(data, sink, capfd):
    log = LocalLog.open(data)
    log.changelogs().store.create_topic("doer-bus-changelog", 1, {})
    log.store.commit("connect-doer", {TopicPartition("bus", 0): 1})
    log.close()
    write(data, letter(1))
    with pytest.raises(StartupError, match="every selected letter is refused"):
        replay(data_dir=data, files=sink, everything=True)
    assert "a command is never replayed" in next(iter(lines(capfd)[0]["refusals"]))
    with pytest.raises(StartupError, match="a topic of commands, of the connector doer"):
        replay(data_dir=data, files=sink, everything=True, to_topic="bus")


def test_a_replay_to_a_topic_is_seen_by_all_its_groups(data, sink, capfd):
    write(data, letter(1))
    ledger = ran(capfd, "0@0", data_dir=data, topic="dead", to_topic="other")
    assert (ledger["replayed"], ledger["delivered"], ledger["remaining"]) == (1, 1, 0)
    (record,) = topic(data, "other")
    headers = dict(record.headers)
    assert (record.value, headers["tieline.dlq.attempts"]) == (b"v1", b"1")
    assert "tieline.dlq.replay.origin" not in headers


def source_letter(value):
    value, key, form = source_form(SourceRecord("readings", value, "k"))
    return letter(
        1, id=source_id("lines", "file:3", value, 0), topic="readings", partition=None, offset=None,
        value=value, key=key, form=form, position="file:3", connector="lines",
    )  # fmt: skip


def source(folder, **settings):
    return connector(
        folder, name="lines", topics=None, topic="readings", file=str(folder / "in.txt"), **settings
    )


def test_a_sources_letter_is_converted_with_the_present_configuration_and_produced(data, tmp_path, capfd):
    write(data, source_letter({"a": 1}))
    files = [source(tmp_path, **{"value.converter": "json", "value.converter.schemas.enable": "false"})]
    ledger = ran(capfd, data_dir=data, files=files, everything=True)
    assert (ledger["replayed"], ledger["delivered"], ledger["remaining"]) == (1, 1, 0)
    (record,) = topic(data, "readings")
    assert json.loads(record.value) == {"a": 1}


def test_a_sources_letter_that_fails_again_is_a_new_letter_with_one_attempt_more(data, tmp_path, capfd):
    write(data, source_letter({"a": 1}))
    files = [source(tmp_path, **{"value.converter": "bytes"})]
    ledger = ran(capfd, data_dir=data, files=files, everything=True)
    assert (ledger["replayed"], ledger["dead_lettered_again"], ledger["remaining"]) == (1, 1, 0)
    show(data_dir=data, topic="dead")
    (shown,) = lines(capfd)
    assert (shown["replays"], shown["stage"]) == (1, "VALUE_CONVERTER")
    assert shown["id"].endswith("#1")


def test_a_dry_run_shows_before_and_after_and_changes_nothing(data, tmp_path, capfd):
    write(data, letter(1, value=b'{"a": 1}'), letter(2, value=b"not JSON"))
    before = topic(data, "dead")
    settings = {"value.converter": "json", "value.converter.schemas.enable": "false"}
    replay(data_dir=data, files=[connector(tmp_path, **settings)], everything=True, dry_run=True)
    good, bad, summary = lines(capfd)
    assert (good["outcome"], good["after"]) == ("accepted", {"topic": "bus", "key": "k", "value": {"a": 1}})
    assert bad["outcome"] == "fails again"
    assert "VALUE_CONVERTER" in bad["failure"]
    assert summary == {"selected": 2, "tried": {"accepted": 1, "fails again": 1}, "refused": {}}
    assert topic(data, "dead") == before
    log = LocalLog.open(data, owner=False)
    assert set(log.topic_names()) == {"dead", "bus", "other"}
    log.close()


def test_a_dry_run_registers_no_schema(data, tmp_path, capfd):
    schema = Schema.parse('{"type": "record", "name": "x.R", "fields": [{"name": "n", "type": "long"}]}')
    value, key, form = source_form(SourceRecord("readings", {"n": 1}, value_schema=schema))
    write(data, replaced(source_letter({}), value=value, key=key, form=form))
    replay(
        data_dir=data, files=[source(tmp_path, **{"value.converter": "avro"})], everything=True, dry_run=True
    )
    shown, summary = lines(capfd)
    assert (shown["outcome"], shown["after"]["value"]) == ("accepted", {"n": 1})
    assert summary["tried"] == {"accepted": 1}
    log = LocalLog.open(data, owner=False)
    assert "_schemas" not in log.topic_names()
    log.close()


def test_a_record_with_a_commands_schema_is_refused_in_any_topic(data, sink, capfd):
    log = LocalLog.open(data)
    number = TopicSchemaStore(log).register("command.Command", Schema.named("command.Command"))
    log.close()
    write(data, letter(1, value=b"\0" + number.to_bytes(4, "big") + b"x"))
    with pytest.raises(StartupError, match="every selected letter is refused"):
        replay(data_dir=data, files=sink, everything=True, to_topic="other")
    assert "its schema is command.Command: a command is never" in next(iter(lines(capfd)[0]["refusals"]))


def test_people_get_text(data, sink, capfd):
    write(data, letter(1), letter(2, attempts=3))
    rows = {"data_dir": data, "output": View.ROWS}
    list_letters(files=sink, **rows)
    show(["0@0"], files=sink, **rows)
    replay(files=sink, everything=True, dry_run=True, **rows)
    with pytest.raises(typer.Exit):
        replay(files=sink, everything=True, wait=0.0, **rows)
    list_jobs(**rows)
    out = capfd.readouterr().out
    for line in (
        "dead: 2 dead letter(s)",
        "  2 letter(s)  store  2023-11-14T22:13:20.001Z to 2023-11-14T22:13:20.002Z",
        "     message  line 1 is not JSON",
        "1 letter(s) would be replayed; of 1 that were tried: 1 accepted",
        "1 replayed = 0 delivered + 0 dead-lettered again + 1 remaining",
        "1 of these are written and wait for their connector",
        "refused 1 letter(s): it was replayed 3 time(s) already",
        "replay dead   waiting",
    ):
        assert line in out


@pytest.mark.parametrize(
    ("conditions", "number"),
    [
        ({"since": "2023-11-14T22:13:20.002Z"}, 1),
        ({"until": "2023-11-14T22:13:20.002Z"}, 1),
        ({"connector": "x"}, 0),
    ],
)
def test_letters_are_selected_by_time_and_connector(data, sink, capfd, conditions, number):
    write(data, letter(1), letter(2))
    list_letters(data_dir=data, files=sink, **conditions)
    assert [group["count"] for group in lines(capfd)] == [number] * bool(number)


def test_dropped_letters_are_hidden_and_kept(data, sink, capfd):
    write(data, letter(1), letter(2))
    drop(["0@0"], data_dir=data, topic="dead", reason="a test\nwith lines", yes=True)
    list_letters(data_dir=data, files=sink)
    list_letters(data_dir=data, files=sink, closed=True)
    hidden, everything = lines(capfd)
    assert (hidden["count"], everything["states"]) == (1, {"dropped": 1, "open": 1})
    assert len(topic(data, "dead")) == 2
    list_jobs(data_dir=data)
    (job,) = lines(capfd)
    assert (job["action"], job["reason"], job["counts"]) == ("drop", "a test with lines", {"dropped": 1})
    assert job["by"].endswith(f"@{socket.gethostname()}")


def test_a_second_replay_is_refused_while_the_first_one_runs(data, sink):
    write(data, letter(1))
    log = LocalLog.open(data)
    log.store.append(
        [
            job_record(
                Job(
                    "j",
                    "replay",
                    "dead",
                    "me@h",
                    5,
                    state=RUNNING,
                    host=socket.gethostname(),
                    pid=os.getppid(),
                )
            )
        ]
    )
    log.close()
    with pytest.raises(StartupError, match="the replay j of dead runs"):
        replay(data_dir=data, files=sink, everything=True)
    cancel("j", data_dir=data)


def test_a_command_that_would_take_all_letters_asks_for_a_condition(data, sink):
    with pytest.raises(StartupError, match="which letters"):
        replay(data_dir=data, files=sink)
    with pytest.raises(StartupError, match="which topic of dead letters"):
        list_letters(data_dir=data)
