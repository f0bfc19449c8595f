"""The filter of the page of points."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tieline_connectors.points.live.filters import FilterError, parse_filter
from tieline_connectors.points.live.point import UNREAD, LivePoint
from tieline_connectors.points.questions import PointName

NOW = 1_000_000_000


def point(value: Any = 21.5, units: str | None = "degF", *, stale: bool = False) -> LivePoint:
    name = PointName("vol1", "campus/ahu1", "ZoneTemperature")
    return LivePoint(
        name, "id", "devices/campus/ahu1/all", units, value, NOW - 5_000_000, (), 0, 1, stale, ""
    )


def matches(text: str, given_point: LivePoint) -> bool:
    return parse_filter(text)(given_point, NOW)


@pytest.mark.parametrize(
    "text",
    [
        "value > 20",
        "value>=21.5",
        "value > 20 and unit == 'degF'",
        'unit == "degC" or unit = "degF"',
        "not value < 0",
        "not (value < 0 or stale)",
        "device ~ 'AHU'",
        "age < 6 and age > 4",
        "type == 'number'",
        "value != 'a text'",
        "value > -5e3",
        "not stale and not abnormal",
        "POINT ~ 'zone' AND Platform == 'vol1'",
    ],
)
def test_a_point_matches(text: str) -> None:
    assert matches(text, point())


@pytest.mark.parametrize(
    "text", ["value > 30", "unit == 'degc'", "stale", "value == '21.5'", "value < 'z'", "value == null"]
)
def test_a_point_does_not_match(text: str) -> None:
    assert not matches(text, point())


def test_or_binds_weaker_than_and() -> None:
    assert matches("value > 20 or value > 30 and stale", point())
    assert not matches("(value > 20 or value > 30) and stale", point())


@pytest.mark.parametrize("value", [None, True, "on", [1], UNREAD, math.nan, 2**70])
def test_every_value_can_be_compared(value: Any) -> None:
    for text in ("value > 3", "value == 'on'", "value ~ 'n'", "value != null", "value == true"):
        matches(text, point(value))


def test_nan_is_neither_more_nor_less() -> None:
    assert not matches("value > 0 or value <= 0", point(math.nan))
    assert matches("abnormal", point(math.nan))


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("value >", "a number, a text in quotes"),
        ("value", "a comparison"),
        ("value > x", "a number"),
        ("colour == 3", "one of value"),
        ("(value > 3", "expected )"),
        ("value > 3 value", "and, or, or the end"),
        ("value > 3; import os", "A text needs quotes"),
        ("__import__('os')", "one of value"),
        ("value > 3 and", "one of value"),
        ("(" * 100 + "stale" + ")" * 100, "nested"),
        ("not " * 100 + "stale", "times not"),
        ("x" * 501, "more than 500"),
    ],
)
def test_an_error_says_what_was_expected(text: str, part: str) -> None:
    with pytest.raises(FilterError, match="filter") as error:
        parse_filter(text)
    assert part in str(error.value)


@given(st.text(max_size=60))
def test_no_text_does_more_than_fail(text: str) -> None:
    try:
        predicate = parse_filter(text)
    except FilterError:
        return
    assert predicate(point(), NOW) in (True, False)


@given(st.floats(allow_nan=False, allow_infinity=False), st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_compare_as_in_python(value: float, limit: float) -> None:
    assert matches(f"value > {limit!r}", point(value)) == (value > limit)
    assert matches(f"value == {limit!r}", point(value)) == (value == limit)
