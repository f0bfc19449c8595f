"""Alarms: which there are, in which order, and how one is shelved."""

from __future__ import annotations

from typing import Any

import pytest

from tieline.api.pages import Alarm
from tieline.ui.alarms import AlarmBoard, FirstSeen, connector_alarms
from tieline.ui.health import Health
from tieline.ui.store import PageStore, Shelved

FAILED: dict[str, Any] = {"state": "FAILED", "trace": "PUT: FatalError: no access\nTraceback"}
OUTAGE = {"to": "MongoDB", "since": "2026-01-31T12:00:00+00:00", "because": "connection refused"}


@pytest.fixture
def store(tmp_path):
    store = PageStore(tmp_path / "pages.db")
    yield store
    store.close()


def alarm(key, severity="warning", since=0):
    return Alarm(key, severity, key, "what is wrong", since)


def keys(board):
    return [each.key for each in board.board.active]


def test_a_failed_connector_and_an_outage_are_alarms():
    ledgers: dict[str, dict[str, Any]] = {
        "a": FAILED,
        "b": {"state": "RUNNING", "not_connected": [OUTAGE]},
        "c": {"state": "RUNNING"},
    }
    failed, outage = connector_alarms(ledgers, Health(dict, "").problems, lambda key: 7)
    assert (failed.key, failed.severity, failed.since_ms) == ("failed.a", "critical", 7)
    assert "PUT: FatalError: no access" in failed.text
    assert "Traceback" not in failed.text
    assert (outage.key, outage.severity, outage.since_ms) == ("outage.b.MongoDB", "warning", 1769860800000)


def test_critical_alarms_come_first_and_older_ones_before_newer_ones(store):
    alarms = [
        alarm("w2", since=2),
        alarm("c9", "critical", 9),
        alarm("w1", since=1),
        alarm("c3", "critical", 3),
    ]
    board = AlarmBoard({"x": lambda: alarms}, store, lambda: 0.0)
    board.refresh()
    assert keys(board) == ["c3", "c9", "w1", "w2"]


def test_the_version_changes_only_with_the_board(store):
    alarms = [alarm("a")]
    board = AlarmBoard({"x": lambda: list(alarms)}, store, lambda: 0.0)
    versions = []
    for change in (lambda: None, lambda: None, alarms.clear, lambda: None):
        change()
        board.refresh()
        versions.append(board.version)
    assert versions == [1, 1, 2, 2]


def test_a_shelved_alarm_returns_when_its_time_ends(store):
    now = [1000.0]
    board = AlarmBoard({"x": lambda: [alarm("a"), alarm("b")]}, store, lambda: now[0])
    store.shelve(Shelved("a", 1600.0, "known", "ann", 1000.0))
    board.refresh()
    assert (keys(board), [(each.key, shelf.reason) for each, shelf in board.board.shelved]) == (
        ["b"],
        [("a", "known")],
    )
    now[0] = 1600.0
    board.refresh()
    assert keys(board) == ["a", "b"]


def test_pages_that_cannot_say_their_alarms_are_an_alarm_and_hide_no_others(store, caplog):
    def broken():
        raise ValueError("secret")

    board = AlarmBoard({"bad": broken, "good": lambda: [alarm("a")]}, store, lambda: 5.0)
    board.refresh()
    board.refresh()
    assert keys(board) == ["pages.bad", "a"]
    assert "secret" not in board.board.active[0].text
    assert caplog.text.count("the alarms of the pages bad cannot be read") == 1


def test_an_alarm_that_ended_and_comes_again_is_a_new_one():
    now = [1.0]
    first_seen = FirstSeen(lambda: now[0])
    assert first_seen("a") == 1000
    first_seen.forget_others()
    now[0] = 2.0
    assert first_seen("a") == 1000
    first_seen.forget_others()
    first_seen.forget_others()
    assert first_seen("a") == 2000


def test_an_alarm_is_shelved_with_a_reason_for_at_most_a_week(serve):
    connector = {"name": "f", "connector.class": "file", "topic": "t", "file": "/nonexistent/x"}
    served = serve([connector])
    board = served.server.board
    served_alarm = alarm("failed.f", "critical")
    board.add_source("test", lambda: [served_alarm])
    browser = served.browser()
    assert "failed.f" in browser.get("/alarms").html
    for fields, status in (
        ({"key": "failed.f", "hours": "1", "reason": " "}, 400),
        ({"key": "failed.f", "hours": "169", "reason": "x"}, 400),
        ({"key": "failed.f", "hours": "nan", "reason": "x"}, 400),
        ({"key": "failed.f", "hours": "0", "reason": "x"}, 400),
        ({"key": "other", "hours": "1", "reason": "x"}, 404),
    ):
        assert browser.post("/alarms/shelve", **fields).status == status
    page = browser.post("/alarms/shelve", key="failed.f", hours="2", reason="<b>waiting for parts</b>")
    assert "&lt;b&gt;waiting for parts&lt;/b&gt;" in page.html
    assert "Nothing is abnormal." in page.html
    assert "failed.f" in browser.post("/alarms/unshelve", key="failed.f").html
    assert "Nothing is abnormal." not in browser.get("/alarms").html
