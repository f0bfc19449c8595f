"""The window against a model that remembers every record."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tieline.config.dead_letters import Window
from tieline.runtime.errors.tolerance import ToleranceWindow

BATCHES = st.lists(st.lists(st.booleans(), max_size=12), max_size=12)
WINDOWS = st.integers(1, 12).flatmap(lambda of: st.builds(Window, st.integers(0, of - 1), st.just(of)))


def exceeded(window, records):
    """Return the index of the first record at which too many of the last ones have failed."""
    for index in range(len(records)):
        if records[index] and sum(records[max(0, index + 1 - window.records) : index + 1]) > window.tolerated:
            return index
    return None


@given(WINDOWS, BATCHES)
def test_the_first_record_too_many_is_found_whatever_the_batches_are(window, batches):
    tolerance = ToleranceWindow(window)
    before: list[bool] = []
    for batch in batches:
        failures = [index for index, failed in enumerate(batch) if failed]
        expected = exceeded(window, [*before, *batch])
        found = tolerance.exceeded_at(failures)
        assert found == (None if expected is None else expected - len(before))
        if found is not None:
            return
        tolerance.advance(len(batch), failures)
        before += batch


@given(BATCHES)
def test_without_a_window_nothing_is_too_much(batches):
    tolerance = ToleranceWindow(None)
    for batch in batches:
        assert tolerance.exceeded_at(range(len(batch))) is None
        tolerance.advance(len(batch), range(len(batch)))
        assert tolerance.fail_late([0]) is None


@given(WINDOWS, st.integers(0, 30))
def test_records_that_fail_after_they_counted_as_good_are_failures_of_now(window, good):
    tolerance = ToleranceWindow(window)
    tolerance.advance(good)
    assert tolerance.fail_late(range(window.tolerated)) is None
    assert tolerance.fail_late([77]) == 77


def test_twenty_five_of_thirty_are_tolerated_and_one_more_is_not():
    tolerance = ToleranceWindow(Window(25, 30))
    assert tolerance.exceeded_at(range(25)) is None
    assert tolerance.exceeded_at(range(26)) == 25
    tolerance.advance(30, range(25))
    assert tolerance.exceeded_at([0]) is None  # the first of the failed ones has left the window
    tolerance.advance(1, [0])
    assert tolerance.exceeded_at([0]) is None
