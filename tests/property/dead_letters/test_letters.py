"""Any record survives as a dead letter, and any headers can be read."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tieline.broker.records import ConsumedRecord
from tieline.dead_letters.letter import Cause, DeadLetter, Form
from tieline.dead_letters.record import letter_record, read_letter, shorten

NAMES = st.sampled_from(
    [
        "tieline.dlq.id",
        "tieline.dlq.headers",
        "tieline.dlq.form",
        "tieline.dlq.attempts",
        "__connect.errors.topic",
        "__connect.errors.partition",
        "__streams.errors.offset",
        "kafka_dlt-original-offset",
        "tieline.timestamp",
    ]
) | st.text(max_size=5)
HEADERS = st.lists(st.tuples(NAMES, st.none() | st.binary(max_size=9)), max_size=6).map(tuple)
TEXT = st.text(st.characters(codec="utf-8"), max_size=20)
NUMBER = st.none() | st.integers(0, 1 << 62)
BYTES = st.none() | st.binary(max_size=20)
CAUSES = st.builds(Cause, TEXT, TEXT, TEXT, TEXT, TEXT, NUMBER, TEXT, TEXT, TEXT)
LETTERS = st.builds(
    DeadLetter,
    TEXT.filter(bool),
    TEXT,
    NUMBER,
    NUMBER,
    BYTES,
    BYTES,
    HEADERS,
    NUMBER,
    CAUSES,
    TEXT,
    NUMBER,
    TEXT,
    st.none() | st.builds(Form, TEXT, TEXT, TEXT, TEXT),
    NUMBER,
    st.integers(0, 99),
    TEXT,
)


@given(LETTERS)
def test_every_letter_is_read_as_it_was_written(letter):
    record = letter_record(letter, "dead")
    assert (record.value, record.key) == (letter.value, letter.key)
    consumed = ConsumedRecord("dead", 0, 1, record.value, record.key, record.headers, 7)
    assert read_letter(consumed) == letter


@given(LETTERS)
def test_a_shortened_letter_keeps_everything_but_traceback_and_the_end_of_the_message(letter):
    whole = letter_record(letter, "dead")
    record = shorten(whole) or whole
    read = read_letter(ConsumedRecord("dead", 0, 1, record.value, record.key, record.headers, 7))
    assert (read.id, read.headers, read.fingerprint) == (letter.id, letter.headers, letter.fingerprint)
    assert shorten(record) is None


@given(HEADERS, BYTES)
def test_no_headers_raise_and_no_record_is_changed(headers, value):
    letter = read_letter(ConsumedRecord("dead", 0, 1, value, None, headers, 7))
    assert letter.value == value
    assert letter.id
    assert set(letter.headers) <= set(headers)
