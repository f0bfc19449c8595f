"""The note of a commit, which other programs may have written or a disk has changed."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tieline.broker.notes import MAX_NOTE_BYTES
from tieline.runtime.task.totals import Ended, Totals, decode_note, encode_note

number = st.integers(0, (1 << 63) - 1)


@given(st.builds(Totals, *[number] * 7))
def test_a_note_returns_the_totals_and_is_short(totals):
    note = encode_note(totals)
    assert decode_note(note) == totals
    assert len(note) < 300 < MAX_NOTE_BYTES


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.text() | values.map(json.dumps))
def test_any_other_text_is_no_note(text):
    assert decode_note(text) is None


@given(st.sampled_from(Totals._fields), values.filter(lambda value: type(value) is not int))
def test_a_note_with_a_changed_field_is_no_note(field, value):
    content = json.loads(encode_note(Totals(1, 2, 3, 3)))
    assert decode_note(json.dumps({**content, field: value})) is None
    assert decode_note(json.dumps({**content, field: -1})) is None
    del content[field]
    assert decode_note(json.dumps(content)) is None


@pytest.mark.parametrize("text", ["", "[" * 100_000, '{"tieline":2}', '{"tieline":1}', "NaN", "null"])
def test_what_is_damaged_or_of_a_later_version_is_no_note(text):
    assert decode_note(text) is None


@given(st.builds(Ended, *[st.integers(0, 50)] * 4), st.integers(0, 1000), st.integers(-20, 20))
def test_a_mismatch_has_its_size_where_offsets_have_no_holes(ended, first, wrong):
    totals = Totals(0, first).plus(ended)
    end = first + sum(ended)
    assert totals.mismatch(end, gapless=True) == totals.mismatch(end, gapless=False) == 0
    assert totals.mismatch(end - wrong, gapless=True) == abs(wrong)
    assert totals.mismatch(end - wrong, gapless=False) == max(0, wrong)  # too many are counted


@given(st.sampled_from(["received", "delivered", "dead_lettered", "filtered"]), st.integers(1, 9))
def test_a_changed_number_is_a_mismatch_on_every_broker(field, wrong):
    totals = Totals(0, 0).plus(Ended(5, 4, 3))
    changed = totals._replace(**{field: getattr(totals, field) + wrong})
    assert changed.mismatch(12, gapless=False) == changed.mismatch(12, gapless=True) == wrong
