"""JSON made true to a schema."""

import datetime as dt
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tieline.api import Schema, parse_json
from tieline.cli.producing.fit_to_schema import SchemaFitter
from tieline.converters.codec import AvroCodec
from tieline.topics.printable import json_text

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
    return codec.decode(codec.encode(SchemaFitter(schema).fit(value)))


def record(*fields):
    return {"type": "record", "name": "x.R", "fields": list(fields)}


@given(DATA)
def test_printed_data_can_be_sent_again_unchanged(data):
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


def test_a_command_needs_only_its_required_fields():
    schema = Schema.named("command.Command")
    value = {"command_id": "1", "issuer": "i", "issued_at": 1, "writes": [{"point": "p", "value": 21.5}]}
    data = SchemaFitter(schema).fit(value)
    assert AvroCodec.of(schema).decode(AvroCodec.of(schema).encode(data))["priority"] is None


def test_a_time_of_a_logical_type_is_iso_8601_or_its_number():
    definition = record({"name": "t", "type": {"type": "long", "logicalType": "timestamp-millis"}})
    iso = fitted(definition, {"t": "2023-11-14T22:13:20.123Z"})
    assert fitted(definition, {"t": 1_700_000_000_123}) == iso
    assert json.loads(json_text(iso)) == {"t": "2023-11-14T22:13:20.123000Z"}


@pytest.mark.parametrize(
    ("value", "message"),
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
def test_a_value_that_does_not_fit_the_schema_is_reported_with_its_field(value, message):
    definition = record({"name": "n", "type": "long"}, {"name": "raw", "type": "bytes"})
    with pytest.raises(ValueError, match=message):
        fitted(definition, value)


def test_a_schema_inside_itself_is_followed():
    definition = record(
        {"name": "v", "type": "bytes"}, {"name": "next", "type": ["null", "x.R"], "default": None}
    )
    assert fitted(definition, {"v": "AA==", "next": {"v": "AQ=="}}) == {
        "v": b"\0",
        "next": {"v": b"\1", "next": None},
    }


FIELDS: list[dict[str, Any]] = [
    {"name": "d", "type": {"type": "int", "logicalType": "date"}},
    {"name": "t", "type": {"type": "int", "logicalType": "time-millis"}},
    {"name": "u", "type": ["null", {"type": "long", "logicalType": "time-micros"}]},
    {"name": "at", "type": {"type": "long", "logicalType": "timestamp-micros"}},
    {"name": "here", "type": {"type": "long", "logicalType": "local-timestamp-micros"}},
    {"name": "id", "type": {"type": "string", "logicalType": "uuid"}},
    {
        "name": "ids",
        "type": {
            "type": "array",
            "items": {"type": "fixed", "name": "U", "size": 16, "logicalType": "uuid"},
        },
    },
    {
        "name": "n",
        "type": {"type": "bytes", "logicalType": "decimal", "precision": 40, "scale": 20},
    },
    {
        "name": "m",
        "type": ["null", {"type": "bytes", "logicalType": "decimal", "precision": 40, "scale": 20}],
    },
    {"name": "plain", "type": ["null", "double"]},
]
DECIMALS = st.decimals(-(10**15), 10**15, places=20)
WHOLE_MS = st.times().map(lambda t: t.replace(microsecond=t.microsecond // 1000 * 1000))
VALUES = st.fixed_dictionaries(
    {
        "d": st.dates(),
        "t": WHOLE_MS,
        "u": st.none() | st.times(),
        "at": st.datetimes(timezones=st.just(dt.timezone.utc)),
        "here": st.datetimes(),
        "id": st.uuids(),
        "ids": st.lists(st.uuids(), max_size=2),
        "n": DECIMALS,
        "m": st.none() | DECIMALS,
        "plain": st.none() | DOUBLE,
    }
)


@given(VALUES)
def test_dates_times_decimals_and_uuids_are_sent_as_they_are_printed(data):
    assert fitted(record(*FIELDS), parse_json(json_text(data))) == data


@given(DECIMALS)
def test_a_decimal_may_be_a_number_with_all_of_its_digits(number):
    text = f'{{"n":{number:f},"m":{number:f},"plain":0.5}}'
    definition = record(*(field for field in FIELDS if field["name"] in ("n", "m", "plain")))
    schema = Schema.parse(json.dumps(definition))
    data = SchemaFitter(schema).fit(parse_json(text), text.encode())
    codec = AvroCodec.of(schema)
    assert codec.decode(codec.encode(data)) == {"n": number, "m": number, "plain": 0.5}


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("d", "2026-13-01", "x.Logical.d: '2026-13-01' is not a date, such as 2026-01-02"),
        ("t", "25:00:00", "x.Logical.t: '25:00:00' is not a time of day"),
        ("t", "12:00:00+01:00", "is not a time of day"),
        ("at", "yesterday", "x.Logical.at: 'yesterday' is not a time in ISO 8601"),
        ("here", "2026-01-01T00:00:00Z", "has a time zone"),
        ("id", "4711", "x.Logical.id: '4711' is not a UUID"),
        ("n", "1e30", "x.Logical.n: 1E\\+30 has more than 20 digits before the point"),
        ("n", "0.123456789012345678901", "more than 20 digits after the point"),
        ("n", "not a number!", "x.Logical.n: .* is not base64"),
        ("m", "not a number!", "x.Logical.m: .* is not base64"),
        ("t", 86_400_000, "x.Logical.t: 86400000 is not a time of a day"),
        ("ids", ["1"], "x.Logical.ids: '1' is not a UUID"),
    ],
)
def test_a_value_that_could_not_be_read_back_is_not_sent_and_its_field_is_named(name, value, message):
    definition = record(*(field for field in FIELDS if field["name"] == name))
    with pytest.raises(ValueError, match=message):
        fitted({**definition, "name": "x.Logical"}, {name: value})


def test_a_text_in_a_union_is_the_first_type_that_it_can_be():
    union = [
        "null",
        {"type": "int", "logicalType": "date"},
        {"type": "long", "logicalType": "timestamp-millis"},
        "bytes",
    ]
    definition = record({"name": "v", "type": union})
    assert fitted(definition, {"v": "2026-01-02"}) == {"v": dt.date(2026, 1, 2)}
    assert fitted(definition, {"v": "2026-01-02T00:00:00Z"})["v"] == dt.datetime(
        2026, 1, 2, tzinfo=dt.timezone.utc
    )
    assert fitted(definition, {"v": "AP8="}) == {"v": b"\x00\xff"}
    with pytest.raises(ValueError, match=r"x\.R\.v: .* is not a date"):
        fitted(definition, {"v": "?"})
