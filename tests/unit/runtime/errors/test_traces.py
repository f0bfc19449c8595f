"""The trace of a failed task: bounded, its sentence on the first line."""

import pytest

from tieline.runtime.errors.traces import describe_error, split_trace


@pytest.fixture
def error():
    try:
        raise ValueError("x" * 100_000)
    except ValueError as error:
        return error


def test_a_long_traceback_loses_its_middle_and_keeps_its_start_and_its_end(error):
    sentence, traceback = split_trace(describe_error("a sentence\nof two lines", error))
    assert sentence == "a sentence of two lines"
    assert len(traceback) < 17_000
    assert traceback.startswith("Traceback (most recent call last):")
    assert "characters left out" in traceback
    assert traceback.endswith("xxx")


@pytest.mark.parametrize("unexpected", [None, ValueError("was not raised")])
def test_an_error_without_a_traceback_is_only_its_sentence(unexpected):
    trace = describe_error("a sentence\nof two lines", unexpected)
    assert trace == "a sentence\nof two lines"
    assert split_trace(trace) == (trace, "")
