"""What is abnormal about a connector, and what of it is an alarm."""

from typing import Any

import pytest

from tieline.api.pages import RunningConnector
from tieline.ui.health import Health, SpoolUse, problems_of
from tieline.ui.sampler import Sample


def ledger(**fields: Any) -> dict[str, Any]:
    return {"state": "RUNNING", "counters": {}, **fields}


def sample(dropped: int) -> Sample:
    counters = {"dropped.spool_full": dropped, "dropped.too_large": 0, "spooled": 9}
    return Sample(1, 0.0, {"bus": ledger(counters=counters)})


def health(limit=0, clock=None):
    now = clock or [0.0]
    return Health(lambda: {"bus": limit}, "Kafka at k:9092", lambda: now[0])


def test_a_connector_that_works_has_no_problem():
    assert problems_of(ledger(), SpoolUse(5, 800, 1000), 0) == []


@pytest.mark.parametrize(("used", "abnormal"), [(800, False), (810, True), (1200, True)])
def test_a_spool_above_80_percent_is_abnormal_and_the_text_names_the_setting(used, abnormal):
    problems = health(1000).problems("bus", ledger(spool_records=1, spool_bytes=used))
    assert [problem.key for problem in problems] == ["spool"] * abnormal
    if abnormal:
        assert "spool.max.bytes" in problems[0].text
        assert f"{min(100, used // 10)} % full" in problems[0].text


def test_a_spool_that_cannot_be_counted_or_has_no_limit_is_not_abnormal():
    assert health(1000).problems("bus", ledger(spool_records=None, spool_bytes=None)) == []
    assert health(0).problems("bus", ledger(spool_records=1, spool_bytes=10**9)) == []


def test_dropped_records_are_abnormal_for_ten_minutes_and_named_by_their_counter():
    clock = [0.0]
    checked = health(clock=clock)
    checked.note(sample(0))
    assert checked.problems("bus", sample(0).ledgers["bus"]) == []
    checked.note(sample(3))
    clock[0] = 300.0
    checked.note(sample(5))
    (problem,) = checked.problems("bus", sample(5).ledgers["bus"])
    assert (problem.key, problem.severity) == ("dropped", "critical")
    assert problem.text.startswith("5 records were dropped in the last 10 minutes (dropped.spool_full)")
    clock[0] = 601.0
    (problem,) = checked.problems("bus", sample(5).ledgers["bus"])
    assert problem.text.startswith("2 records")
    clock[0] = 901.0
    assert checked.problems("bus", sample(5).ledgers["bus"]) == []


def test_what_a_recreated_task_drops_counts_from_its_start():
    checked = health()
    checked.note(sample(5))
    checked.note(sample(2))
    (problem,) = checked.problems("bus", sample(2).ledgers["bus"])
    assert problem.text.startswith("7 records")


def test_a_task_that_restarts_is_a_warning_and_one_that_failed_is_critical_until_its_next_attempt():
    trace = "TASK_POLL: KeyError: 'a bug'\nTraceback"
    restarting = ledger(state="RESTARTING", trace=trace, attempts=2, next_attempt_ms=1_800_000_000_000)
    (problem,) = problems_of(restarting, None, 0)
    assert (problem.key, problem.severity) == ("restarting", "warning")
    assert problem.text == (
        "A task has failed, and restarts by itself (restart 3): TASK_POLL: KeyError: 'a bug'"
    )
    failed = ledger(state="FAILED", trace=trace, attempts=10, next_attempt_ms=1_800_000_000_000)
    (problem,) = problems_of(failed, None, 0)
    assert (problem.key, problem.severity) == ("failed", "critical")
    assert problem.text.endswith(
        "Correct the cause: after 10 restarts its breaker is open, and the next attempt is at 08:00 UTC."
    )
    (problem,) = problems_of({**failed, "next_attempt_ms": None}, None, 0)
    assert problem.text.endswith("Correct the cause and restart the worker.")


def test_a_paused_connector_has_no_problem():
    assert problems_of(ledger(state="PAUSED"), None, 0) == []


def test_a_ledger_that_differs_from_the_offsets_is_critical_and_its_size_is_named():
    assert problems_of(ledger(mismatch=0), None, 0) == []
    (problem,) = problems_of(ledger(mismatch=3), None, 0)
    assert (problem.key, problem.severity) == ("mismatch", "critical")
    assert "by 3 records" in problem.text


def test_critical_problems_come_first():
    outage = {"to": "MongoDB", "since": "2026-01-31T12:00:00+00:00", "because": "connection refused"}
    checked = health()
    checked.note(sample(1))
    problems = checked.problems("bus", ledger(not_connected=[outage], counters={"dropped.too_large": 1}))
    assert [problem.key for problem in problems] == ["dropped", "outage.MongoDB"]


@pytest.mark.parametrize(
    ("to", "connected"), [("MongoDB at h:1", False), ("Kafka at k:9092", True), ("the topic a", True)]
)
def test_an_outage_of_the_broker_or_a_topic_is_not_one_of_the_external_system(to, connected):
    connector = RunningConnector("mongo", "mongo", "sink", {}, ["a"])
    outage = {"to": to, "since": "2026-01-31T12:00:00+00:00", "because": "connection refused"}
    assert health().is_connected(connector, ledger(not_connected=[outage])) is connected


def test_an_outage_with_the_time_of_a_wrong_clock_has_no_since():
    outage = {"to": "MongoDB", "since": "9999999999999999 ms", "because": "connection refused"}
    (problem,) = problems_of(ledger(not_connected=[outage]), None, 0)
    assert problem.since_ms is None
