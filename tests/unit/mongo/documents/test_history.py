"""The layout command-history: what is kept of commands and their results, of both forms."""

import datetime as dt

import pytest

from tieline.api import ID_HEADER, Schema, SinkRecord
from tieline_connectors.command.model.command import Result, WriteResult
from tieline_connectors.command.model.result_records import result_schema, to_old_form
from tieline_connectors.mongo.documents.history import history
from tieline_connectors.mongo.documents.layouts import LAYOUTS, LayoutOptions
from tieline_connectors.mongo.query.search import filter_of, row
from tieline_connectors.points.questions import Search

AT = 1_767_225_600_000_123
POINT = "campus/b1/ahu1/CoolingSetpoint"


def record(value, schema=None):
    headers = ((ID_HEADER, b"0123-7"),)
    return SinkRecord("t", 0, 7, value, None, headers, 1_767_225_601_000, value_schema=schema)


def command(**changes):
    value = {
        "command_id": "c1",
        "correlation_id": None,
        "issuer": "energy-manager",
        "issued_at": AT,
        "expires_at": AT + 60_000_000,
        "not_before": None,
        "reason": "peak",
        "action": "SET",
        "writes": [{"point": POINT, "value": 22.5}],
        "priority": 8,
        "hold_ms": None,
        "tolerance": None,
        "dry_run": False,
        "signature": "ab12",
        **changes,
    }
    return record(value, Schema.named("command.Command"))


def result(**changes):
    writes = (WriteResult(POINT, 22.5, 21.0, 22.5, "VERIFIED"),)
    reported = Result("c1", "SUCCEEDED", AT, "corr", "energy-manager", writes=writes, received_at=AT - 5000)
    return reported._replace(**changes)


def test_a_command_is_stored_in_the_old_agents_fields_with_its_other_fields_beside():
    assert history(command()) == {
        "": {
            "from": "Cloud",
            "to": "CloudAgent",
            "message": "peak",
            "device_point": POINT,
            "new_value": 22.5,
            "device": "campus/b1/ahu1",
            "time": dt.datetime(2026, 1, 1, 0, 0, 0, 123),
            "time_us": AT,
            "command_id": "c1",
            "issuer": "energy-manager",
            "correlation_id": None,
            "action": "SET",
            "priority": 8,
            "hold_ms": None,
            "tolerance": None,
            "dry_run": False,
            "expires_at": dt.datetime(2026, 1, 1, 0, 1, 0, 123),
            "not_before": None,
        }
    }


def test_a_result_is_kept_with_state_reason_values_and_times():
    assert history(record(result().to_value(), result_schema())) == {
        "": {
            "from": "CloudAgent",
            "to": "Cloud",
            "message": "SUCCEEDED",
            "device_point": POINT,
            "new_value": 22.5,
            "device": "campus/b1/ahu1",
            "time": dt.datetime(2026, 1, 1, 0, 0, 0, 123),
            "time_us": AT,
            "command_id": "c1",
            "issuer": "energy-manager",
            "correlation_id": "corr",
            "state": "SUCCEEDED",
            "reason_code": "",
            "reason": "",
            "requested": 22.5,
            "previous": 21.0,
            "actual": 22.5,
            "outcome": "VERIFIED",
            "outcome_reason": "",
            "dry_run": False,
            "received_at": dt.datetime(2025, 12, 31, 23, 59, 59, 995123),
            "started_at": None,
        }
    }


def test_of_several_points_each_has_a_document_of_its_own():
    two = [{"point": f"b/d/p{n}", "value": n} for n in range(2)]
    results = tuple(WriteResult(f"b/d/p{n}", n, None, n, "VERIFIED") for n in range(2))

    commands, reported = history(command(writes=two)), history(record(result(writes=results).to_value()))

    for documents in (commands, reported):
        assert [(k, d["device_point"], d["new_value"]) for k, d in documents.items()] == [
            ("/0", "b/d/p0", 0),
            ("/1", "b/d/p1", 1),
        ]


def test_a_result_of_an_undecodable_record_keeps_its_bytes():
    refused = result(state="REJECTED", reason_code="MALFORMED", reason="no", writes=(), raw=b"\xff\x00")

    (document,) = history(record(refused.to_value())).values()

    assert (document["raw"], document["device_point"], document["message"]) == (
        b"\xff\x00",
        None,
        "REJECTED: no",
    )


def test_the_old_agents_json_of_both_directions_is_kept_unchanged():
    sent = {"message": "m", "new_value": "22.5", "device_point": POINT}
    reported = to_old_form(result(), POINT, 22.5)
    when = {"time": dt.datetime(2026, 1, 1, 0, 0, 1), "time_us": 1_767_225_601_000_000}

    assert history(record(sent)) == {
        "": {
            "from": "Cloud",
            "to": "CloudAgent",
            **sent,
            "device": "campus/b1/ahu1",
            **when,
            "command_id": "0123-7",  # what the command sink calls it, too
        }
    }
    assert history(record(reported)) == {"": {**reported, "device": "campus/b1/ahu1", **when}}


@pytest.mark.parametrize(
    "change",
    [
        {"writes": None},
        {"writes": [5]},
        {"writes": [{"point": 5}]},
        {"issued_at": "now"},
        {"issued_at": 2**70},
        {"issued_at": True},
        {"expires_at": []},
        {"command_id": {"a": 1}},
    ],
)
def test_a_malformed_command_is_stored_as_far_as_it_is_readable(change):
    (document,) = history(command(**change)).values()

    assert (document["from"], document["issuer"]) == ("Cloud", "energy-manager")
    assert document["time"].year in (2025, 2026)


@pytest.mark.parametrize("value", [None, "text", [1], {}, {"state": "x"}, {"temp": 5}])
def test_other_data_is_rejected_with_the_accepted_kinds(value):
    with pytest.raises(ValueError, match=r"takes command\.Command, command\.CommandResult and the old"):
        history(record(value))


def test_both_queries_use_indexed_fields():
    assert filter_of(Search(history="from-cloud"), "time") == {"from": "Cloud"}
    assert filter_of(Search(history="to-cloud"), "time") == {"to": "Cloud"}
    assert filter_of(Search(command="c1"), None) == {"command_id": "c1"}
    layout = LAYOUTS["command-history"](LayoutOptions())
    assert [keys[0][0] for keys in layout.indexes] == ["time", "from", "to", "device", "command_id"]


def test_a_row_of_the_history_shows_both_ends_the_point_and_the_state():
    (document,) = history(record(result(state="REJECTED", reason="too hot").to_value())).values()

    time, ends, content = row(document)

    assert time == "2026-01-01 00:00:00.000"
    assert ends == "CloudAgent → Cloud"
    assert content == f"{POINT}=22.5  REJECTED: too hot  energy-manager  c1"
