"""JSON made true to a schema."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tieline.api import Schema, parse_json
from tieline.cli.fitting import Fitting
from tieline.cli.printable import json_text
from tieline.converters.codec import AvroCodec

LONG = st.integers(-(2**63), 2**63 - 1)
DOUBLE = st.floats(allow_nan=False)
KINDS = {
    "type": "record",
    "name": "x.Kinds",
    "fields": [
        {"name": "raw", "type": "bytes"},
        {"name": "maybe", "type": ["null", "bytes"], "default": None},
        {"name": "digest", "type": {"type": "fixed", "name": "x.Digest", "size": 4}},
        {"name": "again", "type": "x.Digest"},
        {"name": "text", "type": ["bytes", "string"]},
        {"name": "any", "type": {"type": "map", "values": ["null", "boolean", "long", "double", "string"]}},
        {"name": "many", "type": {"type": "array", "items": ["x.Digest", "null"]}},
        {"name": "level", "type": {"type": "enum", "name": "x.Level", "symbols": ["LOW", "HIGH"]}},
    ],
}
DATA = st.fixed_dictionaries(
    {
        "raw": st.binary(max_size=10),
        "maybe": st.none() | st.binary(max_size=10),
        "digest": st.binary(min_size=4, max_size=4),
        "again": st.binary(min_size=4, max_size=4),
        "text": st.text(st.characters(exclude_categories=["Cs"])),
        "any": st.dictionaries(
            st.text(st.characters(exclude_categories=["Cs"]), max_size=3),
            st.none() | st.booleans() | LONG | DOUBLE | st.text(st.characters(exclude_categories=["Cs"])),
        ),
        "many": st.lists(st.none() | st.binary(min_size=4, max_size=4), max_size=3),
        "level": st.sampled_from(["LOW", "HIGH"]),
    }
)


def fitted(definition, value):
    """What a reader gets."""
    schema = Schema.parse(json.dumps(definition))
    codec = AvroCodec.of(schema)
    return codec.decode(codec.encode(Fitting(schema).fit(value)))


def record(*fields):
    return {"type": "record", "name": "x.R", "fields": list(fields)}


@given(DATA)
def test_what_is_printed_can_be_sent_again_and_is_the_same(data):
    assert fitted(KINDS, parse_json(json_text(data))) == data


def test_a_field_with_a_default_may_be_left_out_also_inside_a_union_and_a_list():
    inner = {
        "type": "record",
        "name": "x.Inner",
        "fields": [{"name": "p", "type": "string"}, {"name": "v", "type": "int", "default": 3}],
    }
    other = {"type": "record", "name": "x.Other", "fields": [{"name": "q", "type": "string"}]}
    definition = record(
        {"name": "a", "type": ["null", inner, other], "default": None},
        {"name": "b", "type": {"type": "array", "items": ["x.Other", "x.Inner"]}},
        {"name": "c", "type": "bytes", "default": "\u00ff"},
        {"name": "d", "type": ["string", "null"], "default": "x"},
    )
    assert fitted(definition, {"a": {"p": "1"}, "b": [{"p": "2", "v": 4}, {"q": "3"}]}) == {
        "a": {"p": "1", "v": 3},
        "b": [{"p": "2", "v": 4}, {"q": "3"}],
        "c": b"\xff",
        "d": "x",
    }


def test_a_command_needs_no_more_than_what_makes_it_one():
    schema = Schema.named("command.Command")
    value = {"command_id": "1", "issuer": "i", "issued_at": 1, "writes": [{"point": "p", "value": 21.5}]}
    data = Fitting(schema).fit(value)
    assert AvroCodec.of(schema).decode(AvroCodec.of(schema).encode(data))["priority"] is None


def test_a_time_of_a_logical_type_is_iso_8601_or_its_number():
    definition = record({"name": "t", "type": {"type": "long", "logicalType": "timestamp-millis"}})
    iso = fitted(definition, {"t": "2023-11-14T22:13:20.123Z"})
    assert fitted(definition, {"t": 1_700_000_000_123}) == iso
    assert json.loads(json_text(iso)) == {"t": "2023-11-14T22:13:20.123000Z"}


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ({}, "x.R: lacks n, raw"),
        ({"n": 1.5, "raw": ""}, "x.R.n: is a long"),
        ({"n": 2**63, "raw": ""}, "9223372036854775808"),
        ({"n": True, "raw": ""}, "x.R.n"),
        ({"n": 1, "raw": "not base64!"}, "base64"),
        ({"n": 1, "raw": "", "more": 1}, "has no field more"),
        ([], "x.R"),
        (None, "x.R"),
    ],
)
def test_what_is_not_true_to_the_schema_is_told_with_its_place(value, told):
    definition = record({"name": "n", "type": "long"}, {"name": "raw", "type": "bytes"})
    with pytest.raises(ValueError, match=told):
        fitted(definition, value)


def test_a_schema_inside_itself_is_followed():
    definition = record(
        {"name": "v", "type": "bytes"}, {"name": "next", "type": ["null", "x.R"], "default": None}
    )
    assert fitted(definition, {"v": "AA==", "next": {"v": "AQ=="}}) == {
        "v": b"\0",
        "next": {"v": b"\1", "next": None},
    }
