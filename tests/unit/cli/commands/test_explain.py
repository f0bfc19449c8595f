"""``tieline explain``: what it asks for, and how it prints."""

import json
import time

import pytest
import typer
from typer.testing import CliRunner

from tieline.api import StartupError
from tieline.api.locks import lock_exclusively
from tieline.cli.commands.explain import explain


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run the command beside a worker whose connector has failed with a hostile message."""
    monkeypatch.delenv("TIELINE_WORKER", raising=False)
    app = typer.Typer()
    app.command()(explain)
    (tmp_path / "worker.json").write_text(json.dumps({"data.dir": str(tmp_path / "data")}))
    workers = tmp_path / "data" / "workers"
    workers.mkdir(parents=True)
    now = time.time_ns() // 1_000_000
    task = {"task": 0, "role": "source", "state": "FAILED", "cause": "no\x1b[2Jdevice"}
    ledger = {"type": "source", "state": "FAILED", "tasks": [task]}
    status = {"pid": 1, "started": now, "written": now, "connectors": {"in": ledger}}
    (workers / "here-1.json").write_text(json.dumps(status))

    def run(*arguments):
        with (workers / "here-1.lock").open("w") as lock:
            lock_exclusively(lock.fileno(), "lock", "")
            return CliRunner().invoke(app, list(arguments))

    return lambda *arguments: run(*arguments, "--worker", str(tmp_path / "worker.json"))


def test_a_cause_moves_no_cursor_and_its_fix_is_below_it(run):
    assert run("in").stdout.splitlines() == [
        "✖ Task 0 has failed, and is not restarted: no\\x1b[2Jdevice.",
        "  → Correct the cause, then restart the worker.",
    ]


def test_json_has_the_same_findings(run):
    report = json.loads(run("in", "--json").stdout)
    (finding,) = report["findings"]
    assert (report["connector"], finding["kind"], finding["severity"]) == ("in", "failed", "critical")


def test_an_unknown_connector_is_an_error_that_names_the_known_ones(run):
    error = run("other").exception
    assert isinstance(error, StartupError)
    assert str(error).endswith("has run a connector other, and it has no offsets; known are in")


def test_without_a_worker_the_command_says_how_to_name_one(monkeypatch):
    monkeypatch.delenv("TIELINE_WORKER", raising=False)
    app = typer.Typer()
    app.command()(explain)
    error = CliRunner().invoke(app, ["in"]).exception
    assert isinstance(error, StartupError)
    assert "--worker FILE" in str(error)
