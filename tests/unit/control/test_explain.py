"""Why a connector makes no progress: each cause, its figures, its fix, and the root cause first."""

import datetime as dt
from typing import Any

import pytest

from tieline.control.explain import Observed, explain

NOW = 1_800_000_000_000
BROKER = "Kafka at k:9092"


def ago(seconds):
    return NOW - int(seconds * 1000)


def outage(to, seconds, because="connection refused"):
    since = dt.datetime.fromtimestamp(ago(seconds) / 1000, dt.timezone.utc).isoformat(timespec="seconds")
    return {"to": to, "since": since, "because": because}


def task(**fields: Any) -> dict[str, Any]:
    return {"task": 0, "role": "sink", "state": "RUNNING", "attempts": 0, "partitions": 3, **fields}


def sink(**fields: Any) -> dict[str, Any]:
    return {
        "type": "sink",
        "state": "RUNNING",
        "received": 120,
        "delivered": 120,
        "lag": 0,
        "tasks": [task()],
        "last_received_ms": ago(2),
        "last_delivered_ms": ago(2),
        **fields,
    }


def source(**fields: Any) -> dict[str, Any]:
    ledger = sink(spool_records=0, tasks=[task(role="receiver"), task(role="pump")], **fields)
    del ledger["lag"]
    return {**ledger, "type": "source"}


def observed(ledger, **fields: Any) -> Observed:
    return Observed(NOW, ledger, started_ms=ago(3600), written_ms=ago(1), broker=BROKER, **fields)


def kinds(findings):
    return [finding.kind for finding in findings]


def only(findings):
    (finding,) = findings
    return finding


def test_a_connector_that_works_says_so_with_its_last_delivery():
    finding = only(explain(observed(sink())))
    assert (finding.kind, finding.severity, finding.fix) == ("working", "info", "")
    assert finding.text == (
        "It works: the last delivery was 2 s ago. 120 of 120 received records are delivered."
    )


def test_a_connector_that_no_worker_has_run_lately_names_what_waits():
    finding = only(explain(observed(None, waiting=42)))
    assert finding.kind == "worker_not_running"
    assert finding.text.endswith("42 records wait for it.")
    assert "tieline run" in finding.fix


def test_a_worker_that_has_ended_comes_before_the_failure_that_ended_it():
    failed = task(state="FAILED", cause="TASK_PUT: no", breaker="closed", next_attempt_ms=None)
    ledger = sink(state="FAILED", tasks=[failed])
    ended = explain(observed(ledger, waiting=7)._replace(running=False, written_ms=ago(180)))
    assert kinds(ended) == ["worker_not_running", "failed"]
    assert "its last status 3 min ago; the connector was FAILED then. 7 records wait." in ended[0].text
    assert ended[0].since_ms == ago(180)


def test_an_old_status_of_a_running_worker_is_named_first():
    findings = explain(observed(sink())._replace(written_ms=ago(36)))
    assert kinds(findings) == ["status_old", "working"]
    assert "no status for 36 s" in findings[0].text
    assert kinds(explain(observed(sink())._replace(written_ms=ago(35)))) == ["working"]


def test_a_paused_connector_is_paused_before_everything_else():
    findings = explain(observed(sink(state="PAUSED", lag=9, tasks=[task(state="PAUSED")])))
    assert kinds(findings) == ["paused", "backlog"]


def test_an_unavailable_store_comes_before_the_backlog_that_it_causes():
    ledger = sink(lag=5000, lag_seconds=420, not_connected=[outage("MongoDB at m:27017", 400)])
    store, backlog = explain(observed({**ledger, "last_delivered_ms": ago(410)}))
    assert (store.kind, store.since_ms) == ("store_unavailable", ago(400))
    assert store.text == "Not connected to MongoDB at m:27017 for 6 min: connection refused."
    assert "tries again by itself" in store.fix
    assert (backlog.kind, backlog.severity, backlog.fix) == ("backlog", "warning", "")
    assert backlog.text == "5000 records wait, the oldest for 7 min. The last delivery was 6 min ago."


def test_the_broker_comes_before_what_fails_because_of_it():
    outages = [
        outage("MongoDB at m:27017", 400),
        outage("the topic a", 90, "there is no such topic"),
        outage("the schema registry (VALUE_CONVERTER)", 50),
        outage(BROKER, 30),
        outage("the broker (KAFKA_CONSUME)", 20),
    ]
    assert kinds(explain(observed(sink(not_connected=outages)))) == [
        "broker_unavailable",
        "broker_unavailable",
        "registry_unavailable",
        "topic_missing",
        "store_unavailable",
    ]


def test_a_broker_that_does_not_answer_the_command_is_named_once():
    ledger = sink(not_connected=[outage(BROKER, 30)])
    finding = only(explain(observed(ledger, broker_problem="no broker answers")))
    assert (finding.kind, finding.severity) == ("broker_unavailable", "critical")
    assert finding.text == "The broker does not answer: no broker answers."


def test_a_source_that_is_not_connected_names_the_system_that_it_reads():
    finding = only(explain(observed(source(not_connected=[outage("the platform at tcp://p", 7300)]))))
    assert finding.kind == "not_connected"
    assert "for 2 h 1 min" in finding.text


@pytest.mark.parametrize(
    ("part", "kind", "says"),
    [
        (
            {"state": "RESTARTING", "attempts": 2, "next_attempt_ms": NOW + 4000, "breaker": "closed"},
            "restarting",
            "Task 0 (pump) has failed and restarts in 4 s (restart 3): a bug.",
        ),
        (
            {"state": "FAILED", "attempts": 10, "next_attempt_ms": NOW + 1_680_000, "breaker": "open"},
            "breaker_open",
            "Task 0 (pump) has failed; after 10 restarts its breaker is open for another 28 min: a bug.",
        ),
        (
            {"state": "FAILED", "attempts": 10, "next_attempt_ms": None, "breaker": "open"},
            "breaker_open",
            "Task 0 (pump) has failed; after 10 restarts its breaker is open until the worker is restarted: "
            "a bug.",
        ),
        (
            {"state": "FAILED", "next_attempt_ms": None, "breaker": "closed"},
            "failed",
            "Task 0 (pump) has failed, and is not restarted: a bug.",
        ),
        (
            {
                "state": "FAILED",
                "next_attempt_ms": None,
                "breaker": "closed",
                "cause": "more than 25 of the last 30 records cannot be handled (errors.tolerance.window)",
            },
            "dead_letter_window",
            "Task 0 (pump) has stopped, because too many records became dead letters: more than 25 of the "
            "last 30 records cannot be handled (errors.tolerance.window).",
        ),
    ],
)
def test_a_failed_task_says_when_it_is_restarted_and_why_it_failed(part, kind, says):
    failed = task(**{"role": "pump", "cause": "a bug", **part})
    ledger = source(state=part["state"]) | {"tasks": [task(role="receiver"), failed]}
    finding = only(explain(observed(ledger)))
    assert (finding.kind, finding.text) == (kind, says)
    assert finding.fix


def test_a_connector_that_failed_as_a_whole_gives_its_own_cause_without_the_traceback():
    trace = "START: OSError: no such device\nTraceback (most recent call last):\n  File"
    ledger = sink(state="RESTARTING", tasks=[], trace=trace)
    restart = {"attempts": 0, "next_attempt_ms": NOW + 1000, "breaker": "closed"}
    finding = only(explain(observed({**ledger, **restart})))
    assert finding.text == (
        "The connector has failed and restarts in 1 s (restart 1): START: OSError: no such device."
    )


def test_what_no_restart_helps_comes_before_what_restarts():
    ledger = sink(
        state="FAILED",
        tasks=[
            task(state="RESTARTING", cause="a", next_attempt_ms=NOW, breaker="closed"),
            task(state="FAILED", cause="b", next_attempt_ms=None, breaker="closed"),
        ],
    )
    assert kinds(explain(observed(ledger))) == ["failed", "restarting"]


@pytest.mark.parametrize("partitions", [0, None])
def test_a_sink_without_partitions_says_so_unless_a_cause_is_known(partitions):
    ledger = sink(tasks=[task(partitions=partitions)], lag=None)
    finding = only(explain(observed(ledger)))
    assert finding.kind == "no_partitions"
    missing = {**ledger, "not_connected": [outage("the topic a", 90, "there is no such topic")]}
    assert kinds(explain(observed(missing))) == ["topic_missing"]
    assert kinds(explain(observed({**ledger, "tasks": [task(partitions=partitions), task()]}))) == ["working"]


def test_a_backlog_that_shrinks_is_no_problem_before_it_is_five_minutes_old():
    small, works = explain(observed(sink(lag=10, lag_seconds=299)))
    assert (small.kind, small.severity, works.kind) == ("backlog", "info", "working")
    large = only(explain(observed(sink(lag=10, lag_seconds=300))))
    assert (large.kind, large.severity) == ("backlog", "warning")
    assert "tasks.max" in large.fix


def test_records_that_wait_while_nothing_is_delivered_or_unavailable_are_stalled():
    ledger = source() | {"spool_records": 77, "last_delivered_ms": ago(61), "waiting_since_ms": ago(61)}
    finding = only(explain(observed(ledger)))
    assert (finding.kind, finding.since_ms) == ("stalled", ago(61))
    assert finding.text == (
        "77 records wait, and nothing is reported as unavailable. The last delivery was 1 min ago."
    )
    never = only(explain(observed({**ledger, "last_delivered_ms": None})))
    assert never.text.endswith("Nothing was delivered since the worker started.")


def test_records_that_have_just_come_after_a_long_silence_are_not_stalled():
    ledger = source() | {"spool_records": 1, "last_delivered_ms": ago(3600), "last_received_ms": ago(1)}
    assert kinds(explain(observed({**ledger, "waiting_since_ms": ago(1)}))) == ["backlog", "working"]
    young = {**ledger, "waiting_since_ms": ago(90), "lag_seconds": 1.0}
    assert kinds(explain(observed(young))) == ["backlog", "working"]


def test_records_of_an_earlier_start_that_do_not_move_are_stalled():
    ledger = source(last_received_ms=None, last_delivered_ms=None) | {"spool_records": 5}
    assert kinds(explain(observed(ledger))) == ["stalled"]
    assert kinds(explain(observed(ledger)._replace(started_ms=ago(59)))) == ["backlog", "working"]


def test_a_ledger_that_differs_says_by_how_many_records():
    finding = only(explain(observed(sink(mismatch=3))))
    assert (finding.kind, finding.severity) == ("mismatch", "critical")
    assert "by 3 records" in finding.text


def test_a_connector_that_receives_nothing_says_for_how_long():
    ledger = source() | {"last_received_ms": ago(720), "last_delivered_ms": ago(719)}
    silent, works = explain(observed(ledger))
    assert (silent.kind, silent.since_ms, works.kind) == ("no_data", ago(720), "working")
    assert silent.text == "There is no data: nothing has arrived for 12 min. Nothing waits."
    never = sink(last_received_ms=None, last_delivered_ms=None)
    text = explain(observed(never))[0].text
    assert text == (
        "There is no data: its topics have had no new record for 1 h 0 min since the worker started. "
        "Nothing waits."
    )


def test_a_status_of_an_older_worker_without_these_figures_is_explained_as_far_as_it_goes():
    old = {"type": "sink", "state": "RUNNING", "received": 1, "delivered": 1, "lag": 0}
    assert kinds(explain(observed(old))) == ["no_data", "working"]
    assert kinds(explain(observed({"state": "FAILED"}))) == ["failed"]
