"""What metrics remember: totals that never fall, and the growth of a spool."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tieline.metrics.trends import SpoolForecast, Trends

LIMIT = 1000


@given(st.lists(st.integers(0, 10**12)))
def test_a_highest_total_never_falls_and_is_one_of_the_values(values):
    trends = Trends()
    seen = [trends.highest("a", value) for value in values]
    assert seen == sorted(seen)
    assert all(shown == max(values[: number + 1]) for number, shown in enumerate(seen))


def test_keys_are_remembered_apart():
    trends = Trends()
    assert [trends.highest("a", 5), trends.highest(("a", 0), 3), trends.highest("a", 1)] == [5, 3, 5]


def test_a_spool_that_grows_by_a_tenth_in_an_hour_is_full_in_nine():
    forecast = SpoolForecast()
    assert forecast.hours_until_full(0.0, 0, LIMIT) == math.inf
    assert forecast.hours_until_full(360.0, 10, LIMIT) == pytest.approx(9.9)


def test_nothing_is_forecast_from_a_few_seconds():
    forecast = SpoolForecast()
    forecast.hours_until_full(0.0, 0, LIMIT)
    assert forecast.hours_until_full(29.9, 900, LIMIT) == math.inf
    assert forecast.hours_until_full(30.0, 900, LIMIT) == pytest.approx(100 / 30 / 3600)


def test_a_full_spool_has_no_hours_left_and_a_shrinking_one_has_for_ever():
    forecast = SpoolForecast()
    assert forecast.hours_until_full(0.0, LIMIT, LIMIT) == 0
    assert forecast.hours_until_full(600.0, LIMIT - 1, LIMIT) == math.inf


def test_only_the_growth_of_the_last_ten_minutes_counts():
    forecast = SpoolForecast()
    for minute in range(11):
        forecast.hours_until_full(60.0 * minute, 50 * minute, LIMIT)
    hours = [forecast.hours_until_full(60.0 * minute, 500, LIMIT) for minute in range(11, 22)]
    assert hours == sorted(hours)
    assert hours[0] == pytest.approx(500 / (450 / 600) / 3600)
    assert hours[-1] == math.inf


@given(st.lists(st.tuples(st.floats(0, 100), st.integers(0, 2 * LIMIT)), min_size=1))
def test_a_forecast_is_never_negative_and_keeps_few_samples(steps):
    forecast, now = SpoolForecast(), 0.0
    for seconds, used in steps:
        now += seconds
        hours = forecast.hours_until_full(now, used, LIMIT)
        assert hours >= 0
        assert (hours == 0) == (used >= LIMIT)
