"""Nothing from outside reaches a terminal raw, and nothing of it is lost."""

import json

from hypothesis import given
from hypothesis import strategies as st

from tieline.topics.printable import json_text, printable, time_text

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)
HOSTILE = "\x1b]0;title\x07\x9b31m\x7f\u202e\ud800\r\n\u2028"


@given(st.text())
def test_a_text_is_printable_afterwards(text):
    assert printable(text).isprintable()


def test_a_printable_text_stays_as_it_is():
    assert printable("Küche 21,5 °C") == "Küche 21,5 °C"


@given(VALUES)
def test_a_line_of_json_is_printable_and_says_the_same(value):
    line = json_text(value)
    assert line.isprintable()
    assert json.loads(line) == value


def test_hostile_texts_are_escaped_in_names_and_values():
    line = json_text({HOSTILE: [HOSTILE]})
    assert line.isprintable()
    assert json.loads(line) == {HOSTILE: [HOSTILE]}
    assert printable(HOSTILE).isprintable()


def test_bytes_are_base64_and_integers_exact():
    assert json_text({"a": b"\x00\xff", "b": 2**70}) == '{"a": "AP8=", "b": 1180591620717411303424}'


def test_a_time_is_iso_8601_or_the_number_that_no_calendar_has():
    assert time_text(1_700_000_000_123) == "2023-11-14T22:13:20.123Z"
    assert time_text(2**62) == str(2**62)
