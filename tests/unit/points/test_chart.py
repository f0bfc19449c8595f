"""What a chart shows, and the numbers that it draws."""

from __future__ import annotations

import csv
import datetime as dt
import io
import math
from collections.abc import Sequence
from urllib.parse import parse_qs
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tieline_connectors.points.pages.chart_lines import changes_of, line_of
from tieline_connectors.points.pages.chart_view import ChartView, ViewError, local_text, parse_view
from tieline_connectors.points.pages.csv_text import csv_parts
from tieline_connectors.points.pages.display import value_text
from tieline_connectors.points.questions import Bucket, Series, Value

SECOND = 1_000_000
BERLIN = ZoneInfo("Europe/Berlin")
NOW = dt.datetime(2026, 7, 1, 12, tzinfo=dt.timezone.utc)
NOW_US = int(NOW.timestamp()) * SECOND


def view(**query: str) -> ChartView:
    return parse_view(["p/d/a"], {name.rstrip("_"): text for name, text in query.items()}, BERLIN, NOW)


def parsed(query: str) -> ChartView:
    given_query = parse_qs(query)
    flat = {name: values[-1] for name, values in given_query.items()}
    return parse_view(given_query.get("point", []), flat, dt.timezone.utc, NOW)


def test_a_chart_shows_the_last_hour_by_default() -> None:
    shown = view()
    assert (shown.start, shown.end, shown.is_live) == (NOW_US - 3600 * SECOND, NOW_US, True)


def test_a_time_of_a_form_is_in_the_zone_of_the_person() -> None:
    shown = view(from_="2026-07-01T12:00", to="2026-07-01T13:30:15")
    assert (shown.start, shown.end) == (NOW_US - 7200 * SECOND, NOW_US - 1785 * SECOND)
    assert not shown.is_live


def test_a_time_with_a_zone_keeps_it() -> None:
    assert view(from_="2026-07-01T10:00:00.250Z").start == NOW_US - 7200 * SECOND + 250_000


@pytest.mark.parametrize(
    "query",
    [{"from_": "yesterday"}, {"from_": "1h", "to": "2h"}, {"from_": "9" * 9 + "d", "to": "1970-01-01"}],
)
def test_a_wrong_range_is_explained(query: dict[str, str]) -> None:
    with pytest.raises(ViewError):
        view(**query)


def test_more_points_than_can_be_told_apart_are_rejected() -> None:
    with pytest.raises(ViewError, match="at most 8"):
        parse_view([f"p/d/{number}" for number in range(9)], {}, BERLIN, NOW)


@given(
    st.integers(0, NOW_US - 2 * SECOND),
    st.integers(SECOND, 10**14),
    st.lists(st.text(min_size=1), max_size=3),
)
def test_the_address_of_a_view_describes_it(start: int, length: int, points: list[str]) -> None:
    start -= start % 1000
    length -= length % 1000
    shown = ChartView(list(dict.fromkeys(points)), start, start + length, "", False, 300)
    assert parsed(shown.query()) == shown


def test_a_live_address_stays_live() -> None:
    assert parsed(view(from_="15m").query()).is_live
    assert parsed(view(from_="15m").query(**{"from": "7d", "to": ""})).span == "7d"


@given(st.integers(0, NOW_US), st.integers(SECOND, 10**14))
def test_every_button_leads_to_a_valid_view(start: int, length: int) -> None:
    shown = ChartView([], start, start + length, "", False, 300)
    for moved in shown.moves().values():
        assert 0 <= moved.start < moved.end


def test_a_field_of_a_form_has_local_time() -> None:
    assert local_text(NOW_US, BERLIN) == "2026-07-01T14:00:00"


def values(*times: float) -> Series:
    return Series(0, [Bucket(int(time * SECOND), time, time, time, time) for time in times], False)


def test_values_without_a_gap_are_one_line() -> None:
    line = line_of(values(0, 10, 20, 31))
    assert line.values == [0, 10, 20, 31]


def test_no_line_crosses_a_gap() -> None:
    line = line_of(values(0, 10, 20, 100, 110))
    assert line.values == [0, 10, 20, None, 100, 110]
    assert line.times == sorted(line.times)


def test_no_line_crosses_an_interval_without_values() -> None:
    buckets = [Bucket(number * 60 * SECOND, 1.0, 0.0, 9.0, 2.0) for number in (0, 1, 3)]
    line = line_of(Series(60 * SECOND, buckets, False))
    assert line.values == [1, 2, 1, 2, None, 1, 2]


def test_short_intervals_of_a_slow_point_are_no_gaps() -> None:
    buckets = [Bucket(number * 60 * SECOND, 1.0, 1.0, 1.0, 1.0) for number in range(5)]
    assert None not in line_of(Series(2 * SECOND, buckets, False)).values


def test_a_spike_is_in_the_band() -> None:
    buckets = [Bucket(0, 1.0, 0.5, 90.0, 2.0), Bucket(60 * SECOND, 2.0, 1.0, 3.0, 2.0)]
    line = line_of(Series(60 * SECOND, buckets, False))
    assert (max(value or 0 for value in line.high), line.values) == (90.0, [1.0, 2.0, 2.0, 2.0])


@given(st.lists(st.integers(0, 10**6), unique=True, max_size=50), st.sampled_from([0, 1, 7, 60]))
def test_a_line_has_every_value_in_order(starts: Sequence[int], width: int) -> None:
    buckets = [Bucket(start * (width or 1) * SECOND, 1.0, 1.0, 1.0, 1.0) for start in sorted(starts)]
    line = line_of(Series(width * SECOND, buckets, False))
    assert list(line.times) == sorted(line.times)
    assert len({len(column) for column in line[:4]}) == 1
    assert sum(value is not None for value in line.values) == len(starts) * (2 if width else 1)


def test_only_changes_of_a_text_are_shown() -> None:
    newest_first = [Value(time, text, None) for time, text in ((5, "off"), (4, "on"), (3, "on"), (2, "off"))]
    assert [(value.time, value.value) for value in changes_of(newest_first)] == [
        (5, "off"),
        (3, "on"),
        (2, "off"),
    ]
    assert len(changes_of([Value(2, math.nan, None), Value(1, math.nan, None)])) == 1
    assert len(changes_of([Value(2, 1, None), Value(1, True, None)])) == 2


def test_a_spreadsheet_executes_no_name() -> None:
    rows = [
        ["=HYPERLINK(1)", "+1", "-1", "@x", "\tx", "\r=1", 'a,"b"\nc', -1.5, 2**70, True, None, [1], "\ud800"]
    ]
    text = "".join(csv_parts(["a"], rows))
    (_, row) = csv.reader(io.StringIO(text, newline=""))
    assert row[:6] == ["'=HYPERLINK(1)", "'+1", "'-1", "'@x", "'\tx", "'\r=1"]
    assert row[6:] == ['a,"b"\nc', "-1.5", str(2**70), "true", "", "[1]", "?"]


@given(st.text(max_size=30))
def test_no_cell_begins_a_formula(text: str) -> None:
    (_, row) = csv.reader(io.StringIO("".join(csv_parts(["a"], [[text, "end"]])), newline=""))
    assert row[0][:1] not in ("=", "+", "-", "@", "\t", "\r")


@given(st.lists(st.integers(), max_size=3000))
def test_a_long_table_is_whole(numbers: list[int]) -> None:
    parts = list(csv_parts(["n"], ([number] for number in numbers)))
    assert [int(row[0]) for row in list(csv.reader(io.StringIO("".join(parts))))[1:]] == numbers


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.integers() | st.text(), st.lists))
def test_every_value_is_a_short_text_that_can_be_encoded(value: object) -> None:
    assert len(value_text(value).encode()) < 2000
