"""``tieline query`` on a history file: the same options, documents and exit statuses as on MongoDB."""

import json
import os
import signal
import subprocess
import sys

import pytest
import typer
from tests.contract.query.questions import ORDER, QUESTIONS, REFUSED
from typer.testing import CliRunner

from tieline.cli.command_context import WorkerCommandContext
from tieline_connectors.points.query_command import query

app = typer.Typer()
app.command()(query)


@pytest.fixture
def ask(path):
    """Asks; returns the exit status, the documents and the messages."""

    def ask(*arguments, where=("--history-file", path)):
        context = WorkerCommandContext()
        result = CliRunner().invoke(app, [*map(str, where), "--format", "json", *arguments], obj=context)
        return result.exit_code, [json.loads(line) for line in result.stdout.splitlines()], result.stderr

    return ask


@pytest.fixture
def stored(new_task, reading):
    """Ten readings of two devices, the seconds 0 to 9."""
    task = new_task()
    task.put([reading(n, {"count": n}, device=f"campus/b1/ahu{n % 2}") for n in ORDER])
    return task


@pytest.mark.parametrize(("arguments", "expected"), QUESTIONS)
def test_questions_are_answered_as_by_every_store(stored, ask, arguments, expected):
    status, documents, _ = ask(*arguments)
    assert (status, [document["value"] for document in documents]) == (0, expected)


@pytest.mark.parametrize(("arguments", "says"), REFUSED)
def test_a_wrong_option_is_rejected_as_by_every_store(stored, ask, arguments, says):
    status, documents, messages = ask(*arguments)
    assert (status, documents) == (2, [])
    assert says in messages


def test_a_document_is_that_of_the_layout_point(new_task, reading, ask):
    new_task().put([reading(1.5, {"temp": {"json": str(-(2**70))}})])
    (document,) = ask()[1]
    assert document == {
        "topic": "devices/campus/ahu1/all",
        "time": "2026-01-01T00:00:01.500Z",
        "time_us": 1_767_225_601_500_000,
        "time_source": "TIMESTAMP",
        "received": "2026-01-01T00:00:01.505Z",
        "platform": "p",
        "sender": "driver",
        "device": "campus/ahu1",
        "point": "temp",
        "value": -(2**70),
        "units": "C",
    }


def test_a_table_has_no_control_character(new_task, reading, path):
    new_task().put([reading(1, {"temp": 21.5, "evil": "\x1b[2J\x9b"})])
    result = CliRunner(env={"COLUMNS": "200"}).invoke(app, ["--history-file", str(path)])
    assert "2026-01-01 00:00:01.000" in result.stdout
    assert "temp=21.5 C" in result.stdout
    assert "\x1b" not in result.stdout
    assert "\x9b" not in result.stdout


def test_the_file_of_a_worker_is_found_by_its_settings(stored, ask, tmp_path):
    worker = tmp_path / "worker.yaml"
    worker.write_text(f"data.dir: {tmp_path}\n")
    status, documents, _ = ask("--limit", "1", where=("--worker", worker))
    assert (status, [document["value"] for document in documents]) == (0, [9])


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--command", "4711"], 2, "has readings, not commands"),
        (["--regex", "^devices/(c|campus|.)+x$", "--timeout", "0.3"], 5, "raise --timeout"),
        (["--topic", "none"], 0, "no matching document in "),
    ],
)
def test_what_cannot_be_answered_has_its_exit_status(stored, reading, ask, arguments, status, message):
    stored.put([reading(0, device="campus" * 20)])
    result = ask(*arguments)
    assert result[0] == status
    assert message in " ".join(result[2].split())


def test_a_missing_file_is_unavailable(ask):
    status, documents, messages = ask()
    assert (status, documents) == (3, [])
    assert "there is no history file" in " ".join(messages.split())


@pytest.mark.slow
def test_follow_prints_the_last_readings_then_new_ones(stored, reading, path):
    code = "from tieline.cli.main import main; main()"
    command = ["query", "--history-file", str(path), "--format", "json", "--follow", "--limit", "2"]
    with subprocess.Popen(
        [sys.executable, "-c", code, *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    ) as process:
        assert process.stdout is not None
        try:
            values = [json.loads(process.stdout.readline())["value"] for _ in range(2)]
            future = 10**9  # later than now, and so later than any reading that was shown
            stored.put([reading(future, {"count": 10}), reading(future + 1, {"count": 11})])
            values += [json.loads(process.stdout.readline())["value"] for _ in range(2)]
            process.send_signal(signal.SIGINT)
            rest, messages = process.communicate(timeout=20)
        finally:
            process.kill()
    assert values == [8, 9, 10, 11]
    assert (process.returncode, rest, messages) == (0, "", "")
