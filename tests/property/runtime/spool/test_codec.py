from __future__ import annotations

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tieline.api import Schema, SourceRecord
from tieline.runtime.spool.codec import MAX_DEPTH, SpoolCodec

ANY_TEXT = st.text(st.characters(), max_size=20)  # lone surrogates included
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | ANY_TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(ANY_TEXT, inner, max_size=4),
    max_leaves=12,
)
UNION = Schema('["null", "boolean", "long", "double", "string", "bytes"]')
POINT = Schema(
    json.dumps({"type": "record", "name": "lab.P", "fields": [{"name": "v", "type": UNION.definition}]})
)
BRANCH = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats()
    | st.text(st.characters(exclude_categories=["Cs"]))
    | st.binary()
)
DATA = st.one_of(
    st.tuples(JSON | st.binary(), st.none()),
    st.tuples(BRANCH, st.just(UNION)),
    st.tuples(BRANCH.map(lambda value: {"v": value}), st.just(POINT)),
)
HEADERS = st.lists(st.tuples(st.text(max_size=5), st.none() | st.binary(max_size=5)), max_size=3).map(tuple)
RECORDS = st.builds(
    lambda topic, value, key, headers, timestamp, partition: SourceRecord(
        topic,
        value[0],
        key[0],
        headers=headers,
        timestamp=timestamp,
        partition=partition,
        value_schema=value[1],
        key_schema=key[1],
    ),
    ANY_TEXT,
    DATA,
    DATA,
    HEADERS,
    st.none() | st.integers(-(2**63), 2**63 - 1),
    st.none() | st.integers(0, 2**31 - 1),
)


def codec():
    """With schemas numbered in the order of their first use."""
    known: list[Schema] = []

    def number_of(schema):
        if schema not in known:
            known.append(schema)
        return known.index(schema)

    return SpoolCodec(number_of, known.__getitem__)


@given(RECORDS)
@example(SourceRecord("t", float("nan")))
@example(SourceRecord("t", 2**70, -0.0))
@example(SourceRecord("t", "\ud800", b"", headers=(("h", None), ("h", b""))))
@example(SourceRecord("t\n", {"\ud800": [float("-inf"), None, ""]}, "\n"))
@example(SourceRecord("t", None, "", value_schema=UNION))
@example(SourceRecord("t", b"null", None))
def test_records_leave_the_spool_unchanged(record):
    spool = codec()
    read = spool.decode(spool.encode(record), record.headers)
    assert repr(read) == repr(record)  # NaN equals itself, 1 is not 1.0, -0.0 is not 0.0


@pytest.mark.parametrize(
    "record",
    [
        SourceRecord("t", {1, 2}),
        SourceRecord("t", {"a": b"x"}),
        SourceRecord("t", "x", object()),
        SourceRecord("t", "x", value_schema=POINT),
        SourceRecord("t", {"v": 2**63}, value_schema=POINT),
        SourceRecord("t", {"v": "\ud800"}, value_schema=POINT),
    ],
)
def test_a_value_that_the_spool_cannot_store_is_a_value_error(record):
    with pytest.raises(ValueError):  # noqa: PT011 - any of several
        codec().encode(record)


def nested(depth):
    value: list[object] = []
    for _ in range(depth - 1):
        value = [value]
    return value


def test_a_value_is_read_back_even_with_a_deeper_stack():
    """The pump reads what the receiver wrote; a record that only one of them can hold would block it."""

    def deeper(levels, data):
        return spool.decode(data, ()) if levels == 0 else deeper(levels - 1, data)

    spool = codec()
    assert deeper(300, spool.encode(SourceRecord("t", nested(MAX_DEPTH)))).value == nested(MAX_DEPTH)


@pytest.mark.parametrize("depth", [MAX_DEPTH + 1, 900, 100_000])
def test_a_value_that_is_nested_too_deep_is_rejected_before_it_is_stored(depth):
    with pytest.raises(ValueError, match="without a schema it must be JSON"):
        codec().encode(SourceRecord("t", nested(depth)))


def test_brackets_in_text_do_not_count_as_depth():
    record = SourceRecord("t", {"a": "[" * 10_000})
    spool = codec()
    assert spool.decode(spool.encode(record), ()) == record
