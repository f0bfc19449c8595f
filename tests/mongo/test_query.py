"""``tieline query`` against a MongoDB-wire server."""

import datetime as dt
import json
import os
import signal
import subprocess
import sys

import pytest
import typer
from tests.contract.query.questions import ORDER, QUESTIONS, REFUSED
from typer.testing import CliRunner

from tieline.api import SinkRecord
from tieline_connectors.points.query_command import query
from tieline_connectors.volttron_bus.messages.message import Message
from tieline_connectors.volttron_bus.messages.records import RecordMapper, Route
from tieline_lab.process import free_port

START = 1_767_225_600_000_000
app = typer.Typer()
app.command()(query)


@pytest.fixture
def ask(mongo_uri, database):
    """Run a query; return the exit status, the documents (``--format json``), and standard error."""

    def ask(*arguments):
        where = ["--uri", mongo_uri, "--database", database.name, "--format", "json"]
        result = CliRunner().invoke(app, [*where, *arguments])
        return result.exit_code, [json.loads(line) for line in result.stdout.splitlines()], result.stderr

    return ask


@pytest.fixture
def stored(sink, reading):
    """Ten readings of two devices, the seconds 0 to 9."""
    sink().put([reading(n, device=f"campus/b1/ahu{n % 2}") for n in ORDER])


def counts(documents):
    return [document["points"]["count"] for document in documents]


@pytest.mark.parametrize("layout", ["reading", "point"])
def test_questions_are_answered_as_by_every_store(sink, reading, ask, layout):
    sink(layout=layout).put([reading(n, device=f"campus/b1/ahu{n % 2}", points={"count": n}) for n in ORDER])

    for arguments, expected in QUESTIONS:
        status, documents, _ = ask(*arguments)
        values = [each["value"] if layout == "point" else each["points"]["count"] for each in documents]
        assert (arguments, status, values) == (arguments, 0, expected)


def test_the_cloudagent_layout_answers_the_same_questions_beside_what_the_old_agent_left(
    sink, database, reading, ask
):
    old = {
        "author": "volttron.cloudagnet",
        "topic": "devices/campus/b1/ahu1/all",
        "message": [{"count": -1}, {}],
    }
    database.readings.insert_one({**old, "date": "2025-12-31 23:59:59.000001"})
    sink(layout="cloudagent").put([reading(n, device=f"campus/b1/ahu{n % 2}") for n in range(4)])

    def messages(*arguments):
        status, documents, _ = ask(*arguments)
        assert status == 0
        return [document["message"][0]["count"] for document in documents]

    assert messages() == [3, 2, 1, 0, -1]
    assert messages("--device", "campus/b1/ahu1") == [3, 1, -1]
    assert messages("--since", "2025-12-31", "--until", "2026-01-01T00:00:02") == [1, 0, -1]


def test_documents_without_a_time_are_listed_in_the_order_of_their_insertion(database, ask):
    for number in range(5):
        database.readings.insert_one({"number": number})

    assert [d["number"] for d in ask("--limit", "3")[1]] == [4, 3, 2]
    assert [d["number"] for d in ask("--oldest", "--limit", "2")[1]] == [0, 1]


def test_json_lines_are_exact(sink, reading, ask):
    points = {"big": {"json": str(-(2**70))}, "text": "Zürich 건물", "nan": float("nan"), "long": 2**63 - 1}
    sink().put([reading(1, points=points)])

    _, (document,), _ = ask()

    assert document["points"]["big"] == -(2**70)
    assert document["points"]["text"] == "Zürich 건물"
    assert document["points"]["nan"] != document["points"]["nan"]
    assert document["points"]["long"] == 2**63 - 1
    assert document["time"] == "2026-01-01T00:00:01.000Z"


def test_the_table_shows_time_topic_and_points_and_no_control_character(sink, reading, mongo_uri, database):
    sink().put([reading(1, points={"temp": 21.5, "evil": "\x1b[2J\x9b"})])

    result = CliRunner(env={"COLUMNS": "200"}).invoke(app, ["--uri", mongo_uri, "--database", database.name])

    assert "2026-01-01 00:00:01.000" in result.stdout
    assert "devices/campus/b1/ahu1/all" in result.stdout
    assert "temp=21.5 C" in result.stdout
    assert "\x1b" not in result.stdout
    assert "\x9b" not in result.stdout


def test_an_empty_answer_is_reported_and_is_not_an_error(ask):
    status, documents, reported = ask("--topic", "none")

    assert (status, documents) == (0, [])
    assert "no matching document" in reported


@pytest.mark.parametrize(("arguments", "says"), REFUSED)
def test_a_wrong_option_is_rejected_with_the_valid_ones(ask, arguments, says):
    status, _, reported = ask(*arguments)

    assert status == 2
    assert says in reported


def test_times_are_rejected_for_documents_without_one(sink, database, reading, ask):
    database.readings.insert_one({"x": 1})

    status, _, reported = ask("--since", "1d")

    assert status == 2
    assert "neither time nor date" in reported


def test_an_unavailable_server_is_named_without_the_password():
    uri = f"mongodb://operator:s3cr%40t-word@127.0.0.1:{free_port()}/?serverSelectionTimeoutMS=200"

    result = CliRunner().invoke(app, ["--uri", uri])

    assert result.exit_code == 3
    assert "127.0.0.1" in result.stderr
    assert "s3cr" not in result.output + result.stderr


@pytest.fixture
def following(mongo_uri, database):
    """``tieline query --follow`` as a process."""
    processes = []

    def start(*arguments, uri=mongo_uri):
        code = "from tieline.cli.main import app, main; main()"
        where = ["--uri", uri, "--database", database.name, "--format", "json", "--follow"]
        process = subprocess.Popen(
            [sys.executable, "-c", code, "query", *where, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_follow_prints_the_last_documents_then_each_new_one_and_ends_without_an_error(
    stored, sink, reading, following, ending
):
    process = following("--limit", "2", "--device", "campus/b1/ahu1")
    printed = [json.loads(process.stdout.readline()) for _ in range(2)]

    sink().put([reading(n, device=f"campus/b1/ahu{n % 2}") for n in (11, 10, 13)])
    printed += [json.loads(process.stdout.readline()) for _ in range(2)]
    process.send_signal(ending)
    rest, reported = process.communicate(timeout=20)

    assert counts(printed) == [7, 9, 11, 13]
    assert (process.returncode, rest, reported) == (0, "", "")


def test_follow_polls_if_the_server_has_no_change_streams(database, sink, reading):
    from tieline_connectors.mongo.query.follow import _poll

    now = dt.datetime.now(dt.timezone.utc).timestamp()
    first = int(now - 1_767_225_600)
    put = sink().put
    put([reading(first)])
    looks = _poll(database.readings, {"device": "campus/b1/ahu1"}, "time", print)

    assert next(looks) == []
    put([reading(first + 2), reading(first + 3, device="campus/b1/other"), reading(first - 60)])
    assert sorted(counts(next(looks))) == [first - 60, first + 2]
    assert next(looks) == []


@pytest.mark.parametrize("layout", ["point", "timeseries"])
def test_points_of_a_device_are_found_newest_first_whatever_their_layout(sink, reading, ask, layout):
    sink(layout=layout).put([reading(n, device=f"d{n % 2}", points={"temp": n}) for n in range(6)])

    status, documents, _ = ask("--device", "d1", "--limit", "2")

    assert (status, [document["value"] for document in documents]) == (0, [5, 3])


def test_a_document_from_the_future_does_not_hide_new_ones_from_follow(database, sink, reading):
    from tieline_connectors.mongo.query.follow import _poll

    now = dt.datetime.now(dt.timezone.utc).timestamp()
    first = int(now - 1_767_225_600)
    put = sink().put
    looks = _poll(database.readings, {}, "time", print)

    assert next(looks) == []
    put([reading(first + 30 * 86_400)])
    assert counts(next(looks)) == [first + 30 * 86_400]
    put([reading(first), reading(first - 200)])
    assert sorted(counts(next(looks))) == [first - 200, first]
    put([reading(first + 1)])
    assert counts(next(looks)) == [first + 1]


def test_a_reading_without_metadata_is_found_by_its_device_in_every_layout(database, sink, ask):
    """``{"T": 52.5}`` on ``…/all``, as VOLTTRON's documents have it; and the old agent's document of it."""
    bodies = [{"T": 52.5}, [{"T": 52.5}], [{"T": 52.5}, {"T": {"units": "F"}}]]
    records = [of_bus(n, "devices/campus/b1/ahu1/all", body) for n, body in enumerate(bodies)]
    for layout in ("point", "reading", "timeseries"):
        sink(layout=layout, collection=layout).put(records)
        status, documents, _ = ask("--device", "campus/b1/ahu1", "--collection", layout)
        assert (status, len(documents)) == (0, 3)
    sink(layout="cloudagent", collection="old").put(records)
    old = database.old.find().sort("date")
    assert [document["message"] for document in old] == bodies
    units = {d["time"]: (d["value"], d["units"]) for d in database.point.find()}
    assert sorted(units.values(), key=str) == [(52.5, "F"), (52.5, None), (52.5, None)]


def of_bus(number, topic, body):
    time = START + number * 1_000_000
    message = Message(topic, "agent", {}, body, time, "TIMESTAMP", time, is_text=True)
    record = RecordMapper("lab", [Route("devices", "t")], "avro").record(message)
    return SinkRecord(
        "t", 0, number, record.value, record.key, record.headers, record.timestamp, record.value_schema
    )
