"""``tieline status``: the lines below the table of connectors."""

import datetime as dt
import json
import time
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from tieline.api.locks import lock_exclusively
from tieline.cli.commands.status import lines, status
from tieline.runtime.errors.traces import describe_error

TRACE = (
    "VALUE_CONVERTER: the record readings-0@41 cannot be handled: it is not\nAvro; stop the worker and pass "
    "over the record: tieline offsets set campus-mongo --worker FILE --topic readings --partition 0 --to 42"
)
PLATFORM = "the platform at tcp://a-host-with-a-long-name.buildings.campus.example.org:22916"


def ledgers(since):
    outage = {"to": PLATFORM, "since": since, "because": "the platform does not answer"}
    common = {"received": 1, "delivered": 1}
    return {
        "campus-bus": {"type": "source", "state": "RUNNING", "not_connected": [outage], **common},
        "campus-mongo": {"type": "sink", "state": "FAILED", "trace": TRACE, "lag": None, **common},
        "other": {"type": "sink", "state": "RUNNING", "lag": 0, "lag_seconds": 90.5, **common},
    }


@pytest.fixture
def shown(tmp_path, monkeypatch):
    """Return what ``tieline status`` prints in a pipe, 80 columns wide."""
    monkeypatch.setenv("COLUMNS", "80")
    app = typer.Typer()
    app.command()(status)
    (tmp_path / "workers").mkdir()
    since = (dt.datetime.now(dt.timezone.utc) - dt.timedelta(seconds=51)).isoformat(timespec="seconds")

    def shown(*options, running):
        state = {"pid": 1, "written": int(time.time() * 1000), "connectors": ledgers(since)}
        (tmp_path / "workers" / "here-1.json").write_text(json.dumps(state))
        with (tmp_path / "workers" / "here-1.lock").open("w") as lock:
            if running:
                lock_exclusively(lock.fileno(), "lock", "")
            return CliRunner().invoke(app, [str(tmp_path), *options]).stdout

    return shown


def test_why_a_connector_failed_and_what_is_not_connected_are_lines_that_are_never_cut(shown):
    printed = shown(running=True).splitlines()
    assert f"campus-mongo FAILED: {TRACE.replace(chr(10), ' ')}" in printed
    [line] = [line for line in printed if line.startswith("campus-bus ")]
    assert line.startswith(f"campus-bus not connected to {PLATFORM} since ")
    assert line.endswith(" s): the platform does not answer")
    assert all(len(line) <= 80 for line in printed if not line.startswith("campus-"))
    assert "…" not in "".join(printed)
    [row] = [line for line in printed if "campus-mongo" in line and "FAILED" in line and "unknown" in line]
    assert "None" not in row


def test_the_traceback_of_an_unexpected_error_is_below_its_sentence():
    try:
        raise KeyError("a bug")
    except KeyError as error:
        trace = describe_error("TASK_POLL: KeyError: 'a bug'", error)
    row = {"connector": "bus", "state": "FAILED", "trace": trace, "written": 0, "not_connected": []}
    sentence, title, *code, last = lines([row], 0)
    assert sentence == "bus FAILED: TASK_POLL: KeyError: 'a bug'"
    assert title == "  Traceback (most recent call last):"
    assert any("in test_the_traceback_of_an_unexpected_error" in line for line in code)
    assert last == "  KeyError: 'a bug'"


def test_a_connector_that_restarts_says_when_and_after_how_many_restarts():
    row: dict[str, Any] = {"connector": "bus", "state": "RESTARTING", "trace": "TASK_POLL: no"}
    row |= {"attempts": 2, "next_attempt_ms": 1_800_000_004_000, "breaker": "closed", "written": 0}
    row["not_connected"] = []
    at = dt.datetime.fromtimestamp(1_800_000_004).strftime("%H:%M:%S")
    assert list(lines([row], 1_800_000_000.0)) == [
        "bus RESTARTING: TASK_POLL: no",
        f"bus restarts at {at} (in 4 s), after 2 restarts",
    ]
    opened = {**row, "state": "FAILED", "attempts": 10, "breaker": "open"}
    assert list(lines([opened], 1_799_999_884.0))[1:] == [
        f"bus has an open breaker after 10 restarts, until {at} (in 2 min)"
    ]
    assert list(lines([{**opened, "next_attempt_ms": None}], 0.0))[1:] == [
        "bus has an open breaker after 10 restarts; only a restart of the worker closes it"
    ]
    assert len(list(lines([{**row, "state": "no worker runs"}], 0.0))) == 1


def test_the_lag_is_unknown_if_no_worker_runs(shown):
    rows = {row["connector"]: row for row in json.loads(shown("--json", running=False))["connectors"]}
    assert rows["other"]["lag"] is None
    assert json.loads(shown("--json", running=True))["connectors"][2]["lag"] == 0


def test_an_outage_at_the_end_of_a_worker_lasts_until_its_last_status():
    row = {"connector": "bus", "state": "no worker runs", "trace": None, "written": 1_700_000_060_000}
    begin = dt.datetime.fromtimestamp(1_700_000_000, dt.timezone.utc)
    outage = {"to": "it", "since": begin.isoformat(), "because": "no\x1b[2Janswer"}
    [line] = lines([{**row, "not_connected": [outage]}], 1_800_000_000.0)
    shown = begin.astimezone().strftime("%Y-%m-%d %H:%M:%S")
    assert line == f"bus was not connected to it since {shown} (1 min): no\\x1b[2Janswer"


def test_a_time_that_no_calendar_has_is_shown_as_it_is():
    row = {"connector": "bus", "state": "NOT CONNECTED", "trace": None, "written": 0}
    outage = {"to": "it", "since": "99999999999999999 ms", "because": "no answer"}
    [line] = lines([{**row, "not_connected": [outage]}], 0.0)
    assert line == "bus not connected to it since 99999999999999999 ms: no answer"


def test_a_ledger_that_differs_from_the_offsets_has_a_line_with_its_size():
    row: dict[str, Any] = {
        "connector": "out",
        "state": "RUNNING",
        "trace": None,
        "written": 0,
        "not_connected": [],
    }
    assert list(lines([{**row, "totals": {"mismatch": 0}}, {**row, "totals": None}], 0.0)) == []
    [line] = lines([{**row, "totals": {"mismatch": 3}}], 0.0)
    assert line == "out has a ledger that differs from its committed offsets by 3 records"


def test_the_age_of_the_oldest_uncommitted_record_is_shown_and_unknown_without_a_worker(shown):
    rows = {row["connector"]: row for row in json.loads(shown("--json", running=True))["connectors"]}
    assert rows["other"]["lag_seconds"] == 90.5

    assert "1 min" in shown(running=True)
    assert json.loads(shown("--json", running=False))["connectors"][2]["lag_seconds"] is None
