"""Both commands on a local log, in this process."""

import json

import pytest
import typer

from tieline.api import RetriableError, StartupError
from tieline.broker.local.log import LocalLog
from tieline.broker.records import ConsumedRecord, ProducerRecord, Unit
from tieline.cli.commands.consume import View, consume
from tieline.cli.commands.produce import produce
from tieline.cli.connection import BrokerOptions, open_session
from tieline.registry.schema_topic import TOPIC


@pytest.fixture
def log(tmp_path):
    """The log of a worker that runs."""
    opened = LocalLog.open(tmp_path / "data")
    yield opened
    opened.close()


def write(log, *records):
    producer = log.producer("test", {})
    producer.send(Unit(records))
    (delivery,) = producer.poll(10)
    assert not delivery.failures
    producer.close(1)


def held(log, topic):
    records: list[ConsumedRecord] = []
    log.read(topic, records.append)
    return records


def shown(capfd, tmp_path, topic="t", **options):
    """The records that are printed as JSON."""
    capfd.readouterr()
    start = {} if "since" in options else {"from_beginning": True}
    consume(topic, data_dir=tmp_path / "data", **{"follow": False, **start, **options})
    return [json.loads(line) for line in capfd.readouterr().out.splitlines()]


def place(tmp_path):
    return {"data_dir": tmp_path / "data"}


def file(tmp_path, text, name="messages"):
    path = tmp_path / name
    path.write_text(text)
    return [path]


def test_existing_records_are_shown_once_and_the_log_is_unchanged(log, capfd, tmp_path):
    write(log, *(ProducerRecord("t", b"%d" % n, b"k") for n in range(1200)))
    log.store.commit("reader", {})
    before = log.topics(), log.store.groups()
    assert [record["value"] for record in shown(capfd, tmp_path)] == list(range(1200))
    assert (log.topics(), log.store.groups()) == before


def test_a_limit_a_partition_and_filters_choose(log, capfd, tmp_path):
    log.create_topic("t", partitions=2)
    write(log, *(ProducerRecord("t", b'{"n": %d}' % n, b"k%d" % n, partition=n % 2) for n in range(20)))
    numbers = [r["value"]["n"] for r in shown(capfd, tmp_path, partition=[1], key="k1", limit=3)]
    assert numbers == [1, 11, 13]
    assert [r["key"] for r in shown(capfd, tmp_path, where=["n=7"])] == ["k7"]


def test_a_limit_ends_the_command_even_if_it_follows(log, capfd, tmp_path):
    write(log, ProducerRecord("t", b"1"), ProducerRecord("t", b"2"))
    assert [r["value"] for r in shown(capfd, tmp_path, follow=True, limit=1)] == [1]


def test_since_includes_records_of_that_time_after_later_ones(log, capfd, tmp_path):
    day = 1_700_000_000_000
    write(log, *(ProducerRecord("t", b"%d" % n, timestamp=day + n) for n in (0, 5000, 1000, 9000)))
    assert [r["value"] for r in shown(capfd, tmp_path, since="2023-11-14T22:13:25Z")] == [5000, 9000]


def test_rows_show_no_control_characters(log, capfd, tmp_path):
    hostile = b"\x1b]0;title\x07"
    write(log, ProducerRecord("t", json.dumps({"a": "\x1b[2J"}).encode(), "k\x9b1m".encode()),
          ProducerRecord("t", hostile, hostile))  # fmt: skip
    capfd.readouterr()
    consume("t", **place(tmp_path), from_beginning=True, follow=False, output=View.ROWS)
    out, err = capfd.readouterr()
    assert all(line.isprintable() for line in (out + err).splitlines())
    assert hostile.hex() in out.replace("\n", "").replace(" ", "")
    assert len(out.splitlines()) >= 3


@pytest.mark.parametrize(
    ("options", "printed"),
    [
        ({}, "--from-beginning"),
        ({"from_beginning": True, "since": "1h"}, "either"),
        ({"since": "whenever"}, "15m"),
        ({"from_beginning": True, "partition": [0, 7]}, "no partition 7"),
        ({"from_beginning": True, "topic": "tt"}, r"did you mean t\?"),
    ],
)
def test_an_invalid_request_is_reported_with_the_fix(log, tmp_path, options, printed):
    write(log, ProducerRecord("t", b"1"))
    with pytest.raises(StartupError, match=printed):
        consume(options.pop("topic", "t"), **place(tmp_path), follow=False, **options)


@pytest.mark.parametrize("command", [consume, produce])
def test_a_missing_broker_is_reported_and_nothing_is_created(command, tmp_path):
    def run(**options):
        command("t", **options)

    with pytest.raises(StartupError, match="holds no local log"):
        run(data_dir=tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()
    with pytest.raises(StartupError, match="--worker"):
        run()
    with pytest.raises(StartupError, match="either"):
        run(data_dir=tmp_path, bootstrap_servers="127.0.0.1:1")


def test_a_worker_file_names_the_broker_and_its_problems_are_reported(log, capfd, tmp_path):
    write(log, ProducerRecord("t", b"1"))
    (tmp_path / "worker.yaml").write_text(f"data.dir: {tmp_path / 'data'}\n")
    capfd.readouterr()
    consume("t", worker=tmp_path / "worker.yaml", from_beginning=True, follow=False)
    assert json.loads(capfd.readouterr().out)["value"] == 1
    (tmp_path / "worker.yaml").write_text("data.dirr: x\nlog.level: LOUD\n")
    with pytest.raises(StartupError, match=r"(?s)data\.dirr.*log\.level|log\.level.*data\.dirr"):
        consume("t", worker=tmp_path / "worker.yaml")


def test_an_error_is_one_line_with_its_place_and_without_a_secret(log, capfd, tmp_path):
    settings = {
        "data.dir": str(tmp_path / "data"),
        "schema.registry.url": "http://127.0.0.1:1",
        "value.converter.schema.registry.basic.auth.user.info": "me:other-secret",
    }
    (tmp_path / "worker.json").write_text(json.dumps(settings))
    with pytest.raises(SystemExit) as ended, open_session(BrokerOptions(tmp_path / "worker.json")):
        raise RetriableError("refused me:other-secret\x1b[2J")
    assert ended.value.code == 1
    printed = capfd.readouterr().err
    assert printed == f"the local log in {tmp_path / 'data'}: refused ********\\x1b[2J\n"


def test_lines_are_sent_as_they_are_written_with_key_and_headers(log, capfd, tmp_path):
    log.create_topic("t")
    lines = file(tmp_path, '{"a": {"b": 7}, "x": 1.10}\n\n{"a": {"b": "k"}}\n')
    produce("t", lines, **place(tmp_path), key_field="a.b", header=["h=1", "h=2=3"])
    records = held(log, "t")
    assert [(r.key, r.value) for r in records] == [
        (b"7", b'{"a": {"b": 7}, "x": 1.10}'),
        (b"k", b'{"a": {"b": "k"}}'),
    ]
    assert [r.headers for r in records] == [(("h", b"1"), ("h", b"2=3"))] * 2
    assert "2 sent to t" in capfd.readouterr().err


def test_null_deletes_a_key(log, tmp_path):
    log.create_topic("t")
    produce("t", file(tmp_path, "null\n"), **place(tmp_path), key="k")
    assert [(r.key, r.value) for r in held(log, "t")] == [(b"k", None)]


def test_what_is_sent_with_a_schema_is_shown_as_it_was_written(log, capfd, tmp_path):
    log.create_topic("t")
    value = {"command_id": "1", "issuer": "i", "issued_at": 1, "writes": [{"point": "p", "value": 2**62}]}
    produce("t", file(tmp_path, json.dumps(value)), **place(tmp_path), schema="command.Command")
    (record,) = shown(capfd, tmp_path)
    assert (record["format"], record["schema"]) == ("avro", "command.Command")
    assert record["value"].items() >= value.items()
    again = file(tmp_path, json.dumps(record["value"]))
    produce("t", again, **place(tmp_path), schema="command.Command")
    first, second = held(log, "t")
    assert first.value == second.value


def test_a_schema_may_be_in_a_file(log, capfd, tmp_path):
    log.create_topic("t")
    schema = tmp_path / "mine.avsc"
    schema.write_text('{"type": "record", "name": "x.R", "fields": [{"name": "raw", "type": "bytes"}]}')
    produce("t", file(tmp_path, '{"raw": "AP8="}'), **place(tmp_path), schema=str(schema))
    assert [(r["schema"], r["value"]) for r in shown(capfd, tmp_path)] == [("x.R", {"raw": "AP8="})]


def test_each_entry_of_the_old_message_file_is_sent_as_a_record(log, capfd, tmp_path):
    log.create_topic("t")
    entries = [{"sender": "a", "topic": f"x/{n}", "value": n, "description": "d"} for n in range(3)]
    produce("t", file(tmp_path, json.dumps({"message_list": entries}, indent=2)), **place(tmp_path),
            key_field="topic")  # fmt: skip
    assert [(r["key"], r["value"]) for r in shown(capfd, tmp_path)] == [(e["topic"], e) for e in entries]


def test_one_problem_in_many_files_and_nothing_is_sent_nor_registered(log, tmp_path):
    log.create_topic("t")
    good = '{"command_id": "1", "issuer": "i", "issued_at": 1, "writes": []}\n'
    files = [*file(tmp_path, good * 3), *file(tmp_path, good + '{"issuer": 1}\n{\n', "second")]
    files.append(tmp_path / "third")
    with pytest.raises(StartupError) as refused:
        produce("t", files, **place(tmp_path), schema="command.Command")
    lines = str(refused.value).splitlines()
    assert lines[0] == "3 problems, nothing was sent:"
    assert [line.partition("second: line ")[2][:1] for line in lines[1:3]] == ["2", "3"]
    assert "third" in lines[3]
    assert held(log, "t") == []
    assert TOPIC not in log.topics()


@pytest.mark.parametrize(
    ("text", "options", "printed"),
    [
        ("{}\n1\n", {"key_field": "a"}, "line 2: has no a"),
        ("{}", {"key_field": "a", "key": "b"}, "either --key or --key-field"),
        ("{}", {"header": ["h"]}, "name=value"),
        ("{}", {"schema": "command.Commando"}, "known names: .*command.Command,"),
        ("{}", {"schema": "no.avsc"}, "no.avsc"),
        ("{}", {"live": True}, "--live"),
        ('"\\u001b[2J" x', {}, "line 1: not JSON"),
    ],
)
def test_an_invalid_message_is_reported_with_the_fix(log, tmp_path, text, options, printed):
    log.create_topic("t")
    with pytest.raises(StartupError, match=printed):
        produce("t", file(tmp_path, text), **place(tmp_path), **options)
    assert held(log, "t") == []


def test_a_missing_topic_is_created_only_on_request(log, tmp_path):
    log.create_topic("telemetry")
    lines = file(tmp_path, "1\n")
    with pytest.raises(StartupError, match=r"did you mean telemetry\? --create"):
        produce("telemetri", lines, **place(tmp_path))
    produce("telemetri", lines, **place(tmp_path), create=True)
    assert len(held(log, "telemetri")) == 1


def test_a_record_that_the_broker_rejects_is_reported_by_its_line_and_the_others_are_sent(
    log, capfd, tmp_path
):
    log.create_topic("t", config={"max.message.bytes": "100"})
    lines = file(tmp_path, "1\n" + json.dumps("x" * 200) + "\n3\n")
    with pytest.raises(typer.Exit) as ended:
        produce("t", lines, **place(tmp_path))
    assert ended.value.exit_code == 1
    assert [r.value for r in held(log, "t")] == [b"1", b"3"]
    printed = capfd.readouterr().err
    assert "line 2: refused" in printed
    assert "2 of 3 sent, 1 refused to t" in printed


def test_a_record_too_large_for_every_broker_is_rejected_before_anything_is_sent(log, tmp_path):
    log.create_topic("t")
    with pytest.raises(StartupError, match=r"line 2: takes \d+ bytes"):
        produce("t", file(tmp_path, "1\n" + json.dumps("x" * (16 << 20))), **place(tmp_path))
    assert held(log, "t") == []


def test_many_are_sent_in_their_order(log, tmp_path):
    log.create_topic("t")
    produce("t", file(tmp_path, "".join(f"{n}\n" for n in range(3210))), **place(tmp_path))
    assert [int(r.value or b"") for r in held(log, "t")] == list(range(3210))


def test_decimals_keep_their_digits_and_values_that_cannot_be_read_back_are_not_sent(log, capfd, tmp_path):
    log.create_topic("t")
    number = {"type": "bytes", "logicalType": "decimal", "precision": 30, "scale": 10}
    id_ = {"type": "string", "logicalType": "uuid"}
    fields = [{"name": "n", "type": number}, {"name": "id", "type": id_}]
    schema = tmp_path / "order.avsc"
    schema.write_text(json.dumps({"type": "record", "name": "x.Order", "fields": fields}))
    good = '{"n": 12345678901234567890.0123456789, "id": "12345678-1234-5678-1234-567812345678"}'
    produce("t", file(tmp_path, good), **place(tmp_path), schema=str(schema))
    (record,) = shown(capfd, tmp_path)
    assert record["value"]["n"] == "12345678901234567890.0123456789"

    with pytest.raises(StartupError, match=r"x\.Order\.id: 'none' is not a UUID"):
        produce("t", file(tmp_path, '{"n": 1, "id": "none"}'), **place(tmp_path), schema=str(schema))
    assert len(held(log, "t")) == 1
