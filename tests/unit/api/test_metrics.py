"""A metric that Prometheus would not accept is an error where it is written, before anything runs."""

import pytest

from tieline.api.metrics import CounterMetric, DurationMetric


@pytest.mark.parametrize(
    "arguments",
    [
        ("Bad", "Help.", "x"),
        ("bad__name", "Help.", "x"),
        ("bad_", "Help.", "x"),
        ('bad"}', "Help.", "x"),
        ("ends_total", "Help.", "x"),
        ("a\n", "Help.", "x"),
        ("a", "", "x"),
        ("a", "Help.", "x.*"),
        ("a", "Help.", "x", "label"),
        ("a", "Help.", "x.*", "connector"),
        ("a", "Help.", "x.*", "le"),
        ("a", "Help.", "x.*", "Bad"),
    ],
)
def test_a_counter_that_cannot_be_exported_is_an_error(arguments):
    with pytest.raises(ValueError, match=r"\w"):
        CounterMetric(*arguments)


@pytest.mark.parametrize("name", ["a", "a_ms", "_seconds", "a_seconds_sum"])
def test_a_duration_that_cannot_be_exported_is_an_error(name):
    with pytest.raises(ValueError, match=name):
        DurationMetric(name, "Help.", "x")


def test_names_that_prometheus_accepts_are_accepted():
    assert CounterMetric("bytes_2", "Help.", "sent.*", "kind").label == "kind"
    assert DurationMetric("call_seconds", "Help.", "call").duration == "call"
