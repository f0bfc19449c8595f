import datetime as dt

import pytest

from tieline.api.commands import parse_time
from tieline_connectors.mongo.query.follow import _below
from tieline_connectors.mongo.query.search import filter_of, is_series, json_line, row
from tieline_connectors.points.questions import Search

NOW_US = 1_769_860_800_000_000
NOW = dt.datetime(2026, 1, 31, 12, tzinfo=dt.timezone.utc)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-01-30", dt.datetime(2026, 1, 30, tzinfo=dt.timezone.utc)),
        ("2026-01-30T10:00:00Z", dt.datetime(2026, 1, 30, 10, tzinfo=dt.timezone.utc)),
        ("2026-01-30T10:00:00+01:00", dt.datetime(2026, 1, 30, 9, tzinfo=dt.timezone.utc)),
        ("90s", NOW - dt.timedelta(seconds=90)),
        ("15m", NOW - dt.timedelta(minutes=15)),
        ("1.5h", NOW - dt.timedelta(minutes=90)),
        ("7d", NOW - dt.timedelta(days=7)),
    ],
)
def test_times_are_read_as_people_write_them(text, expected):
    assert parse_time(text, NOW) == expected


def test_a_single_condition_is_not_nested():
    assert filter_of(Search(topic="a"), "time") == {"topic": "a"}
    assert filter_of(Search(), None) == {}


def test_a_devices_name_is_not_an_expression():
    condition = filter_of(Search(device="b1.x/(a)"), "date")

    assert condition == {"topic": {"$regex": r"^devices/b1\.x/\(a\)/[^/]+$"}}


def test_a_query_of_changes_names_the_fields_inside_the_changed_document():
    question = filter_of(Search(topic="a", pattern="b", since=NOW_US), "date")

    assert _below("fullDocument", question) == {
        "$and": [
            {"fullDocument.topic": "a"},
            {"fullDocument.topic": {"$regex": "b"}},
            {
                "$or": [
                    {"fullDocument.date": {"$gte": NOW.replace(tzinfo=None)}},
                    {"fullDocument.date": {"$gte": "2026-01-31 12:00:00.000000"}},
                ]
            },
        ]
    }


def test_no_printed_line_contains_control_characters():
    document = {"time": NOW, "topic": "a\x1b[2J", "points": {"\x9bK": "\u202e"}}

    assert all(cell.isprintable() for cell in row(document))
    assert json_line(document).isprintable()


def test_a_point_is_shown_with_its_value_and_units():
    document = {"_id": "x", "topic": "t", "point": "temp", "value": 20.5, "units": "C"}

    assert row(document)[2] == "temp=20.5 C"
    assert row({**document, "value": None, "units": None})[2] == "temp=null"


def test_a_measurement_of_a_time_series_is_found_by_its_device_and_shown_as_a_point():
    document = {"_id": "x", "series": {"device": "d", "point": "temp"}, "value": 20.5, "units": "C"}

    assert is_series(document)
    assert not is_series({"series": 5})
    assert filter_of(Search(device="d"), "time", is_series(document)) == {"series.device": "d"}
    assert row(document)[2] == "temp=20.5 C"
