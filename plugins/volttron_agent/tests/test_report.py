"""What a worker's log tells the agent."""

import json
import logging

from tieline_agent.report import Report


def told(report, event, **more):
    return report.take(json.dumps({"event": event, "logger": "x", "timestamp": "t", **more}))


def test_a_line_keeps_its_level_its_connector_and_what_a_warning_adds():
    report = Report()
    assert told(report, "hello", level="info", task=0) == (logging.INFO, "hello")
    line = told(report, "full", level="warning", connector="bus", spool="bus-0", way_out="more disk")
    assert line == (logging.WARNING, "bus: full (spool=bus-0, way_out=more disk)")
    assert told(report, "gone", level="error") == (logging.ERROR, "gone")
    assert told(report, "progress", level="info", ledger={}).level == logging.DEBUG


def test_what_is_no_json_is_told_as_it_is_and_kept_for_the_cause():
    report = Report()
    for text in ("Traceback", "{", '"text"', "[]", "last"):
        assert report.take(text) == (logging.INFO, text)
    assert report.last_lines == 'Traceback\n{\n"text"\n[]\nlast'


def test_connectors_are_known_from_the_start_and_from_each_progress():
    report = Report()
    assert (report.started, report.connectors, report.failed) == (False, {}, {})
    told(report, "started", connectors=["bus", "out"])
    assert report.started
    assert report.connectors == {"bus": {"state": "RUNNING"}, "out": {"state": "RUNNING"}}
    ledger = {"bus": {"state": "RUNNING", "received": 5}, "out": {"state": "FAILED", "trace": "no disk"}}
    told(report, "progress", ledger=ledger)
    assert report.connectors == ledger
    assert report.failed == {"out": "no disk"}


def test_a_failure_is_known_at_once():
    report = Report()
    told(report, "started", connectors=["bus", "out"])
    told(report, "the task failed: no disk", level="error", connector="out", state="FAILED")
    assert report.failed == {"out": "the task failed: no disk"}
