"""The command history in MongoDB, both ways, and the questions about it."""

import json

import pytest
import typer
from typer.testing import CliRunner

from tieline.api import SinkRecord, identity
from tieline_connectors.command.model.command import Result, State, WriteResult
from tieline_connectors.command.model.result_records import to_records
from tieline_connectors.points.query_command import query

app = typer.Typer()
app.command()(query)
STATES: tuple[State, ...] = ("ACCEPTED", "EXECUTING", "SUCCEEDED")
START = 1_767_225_600_000_000


def command(number, device):
    value = {
        "command_id": f"c{number}",
        "issuer": "energy-manager",
        "issued_at": START + number * 1_000_000,
        "action": "SET",
        "writes": [{"point": f"campus/{device}/Setpoint", "value": 20.0 + number}],
    }
    return SinkRecord("commands", 0, number, value, None, identity("commands", number), 0)


def results(number, device):
    reported_at = START + number * 1_000_000 + 1000
    writes = (WriteResult(f"campus/{device}/Setpoint", 20.0 + number, 19.0, 20.0 + number, "VERIFIED"),)
    for later, state in enumerate(STATES):  # all in one millisecond
        reported = Result(f"c{number}", state, reported_at + later, None, "energy-manager", writes=writes)
        for record in to_records(reported, "results", ""):
            yield SinkRecord(record.topic, 0, 0, record.value, record.key, record.headers, record.timestamp)


@pytest.fixture
def stored(sink):
    """Six commands to two devices, three results each."""
    task = sink(collection="commands", layout="command-history")
    batch = [command(n, f"ahu{n % 2}") for n in range(6)]
    batch += [reported for n in range(6) for reported in results(n, f"ahu{n % 2}")]
    task.put(batch)
    return task, batch


@pytest.fixture
def ask(mongo_uri, database):
    def ask(*arguments):
        where = ["--uri", mongo_uri, "--database", database.name, "--format", "json", "--limit", "100"]
        result = CliRunner().invoke(app, [*where, *arguments])
        assert result.exit_code == 0, result.stderr
        return [json.loads(line) for line in result.stdout.splitlines()]

    return ask


def test_both_ways_of_the_history_are_found_newest_first(stored, ask):
    sent, reported = ask("--history", "from-cloud"), ask("--history", "to-cloud")

    assert [d["command_id"] for d in sent] == ["c5", "c4", "c3", "c2", "c1", "c0"]
    assert [(d["command_id"], d["state"]) for d in reported] == [
        (f"c{n}", state) for n in (5, 4, 3, 2, 1, 0) for state in ("SUCCEEDED", "EXECUTING", "ACCEPTED")
    ]


def test_the_history_of_a_device_and_of_a_command(stored, ask):
    assert [d["command_id"] for d in ask("--history", "from-cloud", "--device", "campus/ahu1")] == [
        "c5",
        "c3",
        "c1",
    ]
    assert [d.get("state") for d in ask("--command", "c3", "--oldest")] == [
        None,
        "ACCEPTED",
        "EXECUTING",
        "SUCCEEDED",
    ]


def test_a_repeated_result_is_stored_once(stored, database):
    task, batch = stored

    task.put(batch)

    assert database.commands.count_documents({}) == 24
    assert task.counters["duplicates"] == 24


@pytest.mark.parametrize("question", [{"from": "Cloud"}, {"to": "Cloud"}, {"command_id": "c3"}])
def test_the_history_query_uses_an_index(stored, database, question):
    cursor = database.commands.find(question).sort([("time", -1), ("time_us", -1)]).limit(5)

    assert "IXSCAN" in str(cursor.explain()["queryPlanner"]["winningPlan"])
