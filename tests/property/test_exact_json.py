"""The quick reader of JSON says what Python's own says, about every text."""

import json
import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tieline.api import parse_json

NUMBERS = st.one_of(
    st.integers(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.from_regex(r"-?(0|[1-9][0-9]{0,25})(\.[0-9]{1,25})?([eE][+-]?[0-9]{1,4})?", fullmatch=True).map(
        lambda text: json.loads(text)
    ),
)
TEXTS = st.text(st.characters(codec=None), max_size=20)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=20,
)


def outcome(read, data):
    """What a reader says, with the types of numbers and the sign of zero."""
    try:
        return repr(read(data))
    except RecursionError:
        return "too deep"
    except ValueError:
        return "no JSON"


def as_text(data):
    return data if isinstance(data, str) else data.decode("utf-8", "surrogatepass")


@given(VALUES, st.booleans())
@example(math.nan, True)
@example([-math.inf, 2**64, -(2**63) - 1, -0.0, "\ud800", "\ud83d\ude00"], True)
def test_json_that_python_writes_is_read_equally(value, ascii_only):
    text = json.dumps(value, ensure_ascii=ascii_only)
    assert outcome(parse_json, text) == outcome(json.loads, text)
    data = text.encode("utf-8", "surrogatepass")
    assert outcome(parse_json, data) == outcome(json.loads, as_text(data))


@given(st.from_regex(r'[\[\]{},:" \n0-9.eE+\-a\\ut]{0,30}', fullmatch=True))
@example('{"a":1,"a":2}')
@example("1e400")
@example("-0")
@example("[1,]")
@example("01")
@example('"\t"')
def test_json_like_text_is_accepted_or_rejected_equally(text):
    assert outcome(parse_json, text) == outcome(json.loads, text)


@given(st.binary(max_size=30))
def test_any_bytes_are_accepted_or_rejected_without_another_error(data):
    outcome(parse_json, data)


@pytest.mark.parametrize("text", ["9" * 5000, "[" * 100_000, '{"a":' * 100_000, '"' + "\\ud83d" * 1000 + '"'])
def test_numbers_that_are_too_large_are_rejected_equally(text):
    assert outcome(parse_json, text) == outcome(json.loads, text)


def test_a_byte_order_mark_is_not_part_of_the_text():
    assert parse_json("\ufeff[1]".encode()) == [1]
