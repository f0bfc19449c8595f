"""Which folder a row is in."""

import datetime
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tieline_parquet.folders import NULL_NAME, Folders, escaped

from tieline.api import SinkRecord


def folder(value=None, timestamp=None, *, fields=(), time_field="", unit="us"):
    folders = Folders("date", time_field, unit, fields)
    record = SinkRecord("t", 0, 0, value, timestamp=timestamp)
    return folders.of(record, folders.time(record))


def test_the_date_is_that_of_the_record_in_utc():
    assert folder(timestamp=0) == "date=1970-01-01"
    assert folder(timestamp=86_399_999) == "date=1970-01-01"
    assert folder(timestamp=1_769_817_600_000) == "date=2026-01-31"
    assert folder(timestamp=None) == f"date={NULL_NAME}"
    assert folder(timestamp=-1) == f"date={NULL_NAME}"  # Kafka's word for none


@pytest.mark.parametrize("found", [float("inf"), float("nan"), 1e308])
def test_a_number_that_is_no_time_is_bad_data(found):
    with pytest.raises(ValueError, match=r"time|NaN|year|date"):
        folder({"time": found}, 0, time_field="time", unit="s")


@pytest.mark.parametrize(
    ("found", "unit"),
    [
        (1_769_817_600_000_000, "us"),
        (1_769_817_600_000, "ms"),
        (1_769_817_600, "s"),
        (1_769_817_600.5, "s"),
        (datetime.datetime(2026, 1, 31, tzinfo=datetime.timezone.utc), "us"),
        (datetime.datetime(2026, 1, 31), "us"),
    ],
)
def test_the_time_may_be_a_field_of_the_value(found, unit):
    assert folder({"a": {"time": found}}, 0, time_field="a.time", unit=unit) == "date=2026-01-31"


@pytest.mark.parametrize(
    "value", ["text", {}, {"time": "text"}, {"time": True}, {"time": [1]}, {"time": 10**30}]
)
def test_a_time_that_is_none_is_a_problem_of_the_record(value):
    with pytest.raises(ValueError, match="time"):
        folder(value, time_field="time")


def test_fields_make_folders_below_the_date():
    value = {"site": "a/b", "at": {"floor": 3}, "on": True, "none": None}
    path = folder(value, 0, fields=("site", "at.floor", "on", "none"))
    assert path == f"date=1970-01-01/by_site=a%2Fb/by_floor=3/by_on=true/by_none={NULL_NAME}"


@pytest.mark.parametrize("value", [[1], {"a": 1}, b"x", "\ud800", "x" * 300])
def test_a_value_that_can_name_no_folder_is_a_problem_of_the_record(value):
    with pytest.raises(ValueError):  # noqa: PT011 - each in its own words
        folder({"f": value}, 0, fields=("f",))


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=60))
def test_no_text_leads_out_of_its_folder(text):
    name = escaped(text)
    assert os.path.basename(f"x={name}") == f"x={name}"
    assert "\x00" not in name
    assert "=" not in name
