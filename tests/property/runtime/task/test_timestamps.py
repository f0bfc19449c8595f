"""A record's own time survives, and no broker sees one for which it would delete or refuse the record."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from tieline.broker.records import ConsumedRecord
from tieline.runtime.task.timestamps import TIMESTAMP_HEADER, WITHIN_MS, as_written, at_broker

NOW = 1_700_000_000_000
names = st.sampled_from(["a", "tieline.id", TIMESTAMP_HEADER])
headers = st.lists(st.tuples(names, st.none() | st.binary(max_size=3)), max_size=3).map(tuple)

ours = headers.filter(lambda pairs: not pairs or pairs[-1][0] != TIMESTAMP_HEADER)


def consumed(timestamp, headers):
    return ConsumedRecord("t", 0, 0, b"", None, headers, NOW if timestamp is None else timestamp)


@given(st.integers(0, 2**63 - 1), ours)
@example(NOW - WITHIN_MS, ())
@example(NOW - WITHIN_MS - 1, ())
@example(NOW + WITHIN_MS + 1, ())
@example(0, (("a", None),))
def test_a_sink_is_given_the_time_that_the_source_gave_unless_it_lies_ahead_and_the_broker_one_near_now(
    timestamp, headers
):
    stored, sent = at_broker(timestamp, headers, NOW)
    assert stored is None or abs(stored - NOW) <= WITHIN_MS
    assert (stored == timestamp) == (abs(timestamp - NOW) <= WITHIN_MS)
    got = as_written(consumed(stored, sent))
    assert (got.timestamp, got.headers) == (NOW if timestamp > NOW + WITHIN_MS else timestamp, headers)


@given(st.integers(NOW, NOW + WITHIN_MS), headers)
def test_a_header_that_a_record_brings_along_does_not_change_its_time(timestamp, headers):
    stored, sent = at_broker(timestamp, (*headers, (TIMESTAMP_HEADER, b"1")), NOW)
    assert as_written(consumed(stored, sent)).timestamp == timestamp


@given(st.none() | st.integers(max_value=-1) | st.integers(min_value=2**63) | st.text(max_size=3), ours)
def test_an_invalid_time_is_left_for_the_producer_to_reject(timestamp, headers):
    assert at_broker(timestamp, headers, NOW) == (timestamp, headers)


@given(st.integers(min_value=NOW + 1).map(lambda ms: b"%d" % ms))
def test_no_header_makes_a_record_younger_than_its_timestamp(value):
    record = consumed(NOW, ((TIMESTAMP_HEADER, value),))
    assert as_written(record) == record


@given(st.none() | st.sampled_from([b"", b"-1", b"1.5", b"x", b"9" * 19, b"1" * 20, "²".encode()]))
def test_another_programs_header_of_that_name_is_unchanged(value):
    record = consumed(5, ((TIMESTAMP_HEADER, value),))
    assert as_written(record) == record
