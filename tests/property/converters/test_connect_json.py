"""Kafka Connect's JSON envelope: every type survives into records, into MongoDB, and back into JSON."""

from __future__ import annotations

import base64
import contextlib
import datetime as dt
import json
from decimal import Decimal
from typing import Any

import bson
import pytest
from bson import Decimal128
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tieline.api import DataError, Datum, Encoded, Schema, SinkRecord
from tieline.converters.codec import AvroCodec
from tieline.converters.json import JsonConverter, JsonConverterConfig
from tieline_connectors.mongo.client import CODEC
from tieline_connectors.mongo.documents.layouts import value as value_layout
from tieline_connectors.mongo.documents.values import storable

LOGICAL = "org.apache.kafka.connect.data."
UTC = dt.timezone.utc
NAMES = st.sampled_from(["lab.Reading", "a", "x-y.Value", "Envelope"])
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


def converter(**settings):
    no_store: Any = None
    instance = JsonConverter(
        JsonConverterConfig.parse({"schemas.enable": "true", **settings}), is_key=False, schemas=no_store
    )
    return instance


def read(envelope: Any, **settings: str) -> Datum:
    datum: Datum
    (datum,) = converter(**settings).deserialize([Encoded("t", json.dumps(envelope).encode())])
    return datum


def written(datum: Datum) -> Any:
    (data,) = converter().serialize([datum])
    assert data is not None
    return json.loads(data)


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def integers(bits: int) -> st.SearchStrategy[int]:
    return st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def unscaled(number: int) -> str:
    return b64(number.to_bytes((number + (number < 0)).bit_length() // 8 + 1, "big", signed=True))


LEAVES = [
    ({"type": "boolean"}, st.booleans()),
    *(({"type": f"int{bits}"}, integers(bits)) for bits in (8, 16, 32, 64)),
    ({"type": "float"}, st.floats(width=32, allow_nan=False, allow_infinity=False)),
    ({"type": "double"}, st.floats(allow_nan=False, allow_infinity=False)),
    ({"type": "string"}, TEXT),
    ({"type": "string", "name": "lab.Text", "version": 3, "parameters": {"a": "b"}, "doc": "why"}, TEXT),
    ({"type": "bytes"}, st.binary(max_size=8).map(b64)),
    ({"type": "int32", "name": f"{LOGICAL}Date", "version": 1}, integers(32)),
    ({"type": "int32", "name": f"{LOGICAL}Time", "version": 1}, st.integers(0, 86_399_999)),
    ({"type": "int64", "name": f"{LOGICAL}Timestamp", "version": 1}, integers(63)),
    *(
        (
            {
                "type": "bytes",
                "name": f"{LOGICAL}Decimal",
                "version": 1,
                "parameters": {"scale": str(scale), "connect.decimal.precision": "40"},
            },
            st.integers(-(10**30), 10**30).map(unscaled),
        )
        for scale in (0, 2, 9)
    ),
]


@st.composite
def typed(draw: Any, depth: int = 3) -> tuple[dict[str, Any], Any]:
    """A Connect schema and a payload, as Connect's JsonConverter writes them."""
    kind = draw(st.sampled_from(["leaf", "leaf", *(("array", "map", "pairs", "struct") if depth else ())]))
    if kind == "leaf":
        schema, values = draw(st.sampled_from(LEAVES))
        payload = draw(values)
    elif kind == "struct":
        parts = draw(st.lists(typed(depth - 1), max_size=3))
        schema = {"type": "struct", "fields": [{**s, "field": f"f{n}"} for n, (s, _) in enumerate(parts)]}
        if draw(st.booleans()):
            schema["name"] = draw(NAMES)
        payload = {f"f{n}": p for n, (_, p) in enumerate(parts)}
    elif kind == "array":
        inner, payload = draw(typed(depth - 1))
        schema, payload = {"type": "array", "items": inner}, [payload]
    else:
        inner, payload = draw(typed(depth - 1))
        keys = {"type": "string" if kind == "map" else "int32", "optional": False}
        schema = {"type": "map", "keys": keys, "values": inner}
        payload = {"k": payload} if kind == "map" else [[7, payload]]
    schema = {**schema, "optional": draw(st.booleans())}
    if schema["optional"] and draw(st.booleans()):
        payload = None
    return schema, payload


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(typed())
def test_a_value_that_was_read_is_written_unchanged(pair):
    schema, payload = pair
    envelope = {"schema": schema, "payload": payload}
    assert written(read(envelope)) == envelope


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(typed())
def test_a_value_that_was_read_matches_the_schema_of_its_record(pair):
    schema, payload = pair
    datum = read({"schema": schema, "payload": payload})
    assert datum.schema is not None
    codec = AvroCodec.of(datum.schema)
    if "float" not in json.dumps(schema):  # 4 bytes hold less than what JSON says
        assert codec.decode(codec.encode(datum.data)) == datum.data


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(typed())
def test_a_value_that_was_read_can_be_stored(pair):
    schema, payload = pair
    document = value_layout(SinkRecord("t", 0, 0, read({"schema": schema, "payload": payload}).data))
    bson.encode(storable(document), codec_options=CODEC)


def test_decimals_dates_and_bytes_arrive_in_mongodb_with_their_types():
    fields = [
        {
            "field": "price",
            "type": "bytes",
            "name": f"{LOGICAL}Decimal",
            "version": 1,
            "parameters": {"scale": "2"},
            "optional": True,
        },
        {"field": "at", "type": "int64", "name": f"{LOGICAL}Timestamp", "version": 1, "optional": False},
        {"field": "day", "type": "int32", "name": f"{LOGICAL}Date", "version": 1, "optional": False},
        {"field": "time", "type": "int32", "name": f"{LOGICAL}Time", "version": 1, "optional": False},
        {"field": "raw", "type": "bytes", "optional": False},
        {"field": "note", "type": "string", "optional": False, "default": "none"},
    ]
    schema = {"type": "struct", "fields": fields, "optional": False, "name": "shop.Order"}
    payload = {"price": "MDk=", "at": 1767225600123, "day": 20454, "time": 3723004, "raw": "AP8="}

    datum = read({"schema": schema, "payload": payload})

    assert datum.data == {
        "price": Decimal("123.45"),
        "at": dt.datetime(2026, 1, 1, 0, 0, 0, 123000, tzinfo=UTC),
        "day": dt.date(2026, 1, 1),
        "time": dt.time(1, 2, 3, 4000),
        "raw": b"\x00\xff",
        "note": "none",
    }
    assert datum.schema is not None
    assert datum.schema.name == "shop.Order"
    stored = bson.decode(
        bson.encode(storable(value_layout(SinkRecord("t", 0, 0, datum.data))), codec_options=CODEC)
    )
    assert stored == {
        "price": Decimal128("123.45"),
        "at": dt.datetime(2026, 1, 1, 0, 0, 0, 123000),
        "day": dt.datetime(2026, 1, 1),
        "time": "01:02:03.004000",
        "raw": b"\x00\xff",
        "note": "none",
    }


def scaled(scale: str) -> dict[str, Any]:
    return {"type": "bytes", "name": f"{LOGICAL}Decimal", "parameters": {"scale": scale}}


@pytest.mark.parametrize(
    ("schema", "payload", "value"),
    [
        (scaled("2"), "MDk=", Decimal("123.45")),
        (scaled("-2"), "MDk=", Decimal("1.2345E+6")),
        (scaled("2"), 123.45, Decimal("123.45")),
        (scaled("2"), 7, Decimal(7)),
        (scaled("many"), "MDk=", b"09"),
        ({"type": "bytes", "name": f"{LOGICAL}Decimal"}, "MDk=", b"09"),
        ({"type": "int64", "name": f"{LOGICAL}Timestamp"}, 253402300800000, 253402300800000),
        ({"type": "int32", "name": f"{LOGICAL}Time"}, 90_000_000, 90_000_000),
        ({"type": "string", "name": f"{LOGICAL}Date"}, "today", "today"),
        ({"type": "int64", "name": "io.debezium.time.MicroTimestamp"}, 5, 5),
        ({"type": "double"}, "NaN", None),
        ({"type": "double"}, 1, 1.0),
        ({"type": "int32"}, 1.0, 1),
        ({"type": "string", "optional": True}, None, None),
        ({"type": "string", "optional": True, "default": "x"}, None, "x"),
        (
            {"type": "map", "keys": {"type": "int32"}, "values": {"type": "string"}},
            [[1, "a"], [2, "b"]],
            [{"key": 1, "value": "a"}, {"key": 2, "value": "b"}],
        ),
    ],
)
def test_each_type_is_read_as_connect_reads_it(schema, payload, value):
    parsed = read({"schema": schema, "payload": payload}).data
    assert parsed == value or (value is None and parsed != parsed)
    assert type(parsed) is type(value) or value is None


def test_a_decimal_that_is_written_as_a_number_keeps_every_digit():
    text = '{"schema":{"type":"bytes","name":"%sDecimal","parameters":{"scale":"20"}},"payload":%s}'
    digits = "12345678901234567890.12345678901234567890"
    (datum,) = converter().deserialize([Encoded("t", (text % (LOGICAL, digits)).encode())])
    assert str(datum.data) == digits


def test_a_null_stays_null_if_defaults_are_disabled():
    envelope = {"schema": {"type": "string", "optional": True, "default": "x"}, "payload": None}
    assert read(envelope, **{"replace.null.with.default": "false"}).data is None


def test_two_structs_of_one_name_and_those_without_one_are_told_apart():
    def struct(name, **fields):
        named = {"name": name} if name else {}
        kinds = [{"field": key, "type": kind, "optional": False} for key, kind in fields.items()]
        return {"type": "struct", "fields": kinds, "optional": True, **named}

    parts = [struct("v", a="int32"), struct("v", a="int32"), struct("v", b="string"), struct("", c="double")]
    schema = {
        "type": "struct",
        "optional": False,
        "fields": [{**part, "field": f"f{n}"} for n, part in enumerate(parts)],
    }
    envelope = {"schema": schema, "payload": {"f0": {"a": 1}, "f1": {"a": 2}, "f2": {"b": "x"}, "f3": None}}
    datum = read(envelope)
    assert datum.data == envelope["payload"]
    assert written(datum) == envelope


@pytest.mark.parametrize(
    ("schema", "payload", "says"),
    [
        ({"type": "string"}, None, "payload: is null, and its schema is not optional"),
        ({"type": "int8"}, 128, "payload: is not an integer of 8 bits: 128"),
        ({"type": "boolean"}, 1, "payload: is not a boolean"),
        ({"type": "bytes"}, "!", "payload: is not base64"),
        ({"type": "made-up"}, 1, "Connect has no type 'made-up'"),
        ({"type": "array"}, [], "its schema is not a Connect schema"),
        ({"type": "struct", "fields": [{"type": "string"}]}, {}, "a field without a name"),
        (
            {"type": "struct", "fields": [{"field": "a", "type": "array", "items": {"type": "int32"}}]},
            {"a": [1, "x"]},
            r"payload\.a\[\]: is not an integer of 32 bits: 'x'",
        ),
        ({"type": "map", "keys": {"type": "int32"}, "values": {"type": "int32"}}, {"a": 1}, "array of pairs"),
        ([], 1, "its schema is not a Connect schema"),
        ("string", 1, "its schema is not a Connect schema"),
        ({"type": "double"}, 10**400, "too large"),
        (
            {"type": "struct", "fields": [{**scaled("2"), "field": "d"}, {"field": "n", "type": "int64"}]},
            {"d": 1, "n": float("inf")},
            r"payload\.n: is not an integer of 64 bits: inf",
        ),
    ],
)
def test_data_that_does_not_match_its_schema_is_a_data_error_that_names_the_field(schema, payload, says):
    with pytest.raises(DataError, match=says):
        read({"schema": schema, "payload": payload})


def test_avro_types_are_written_as_connects_types_and_others_without_a_schema():
    schema = Schema.parse(
        '{"type":"record","name":"lab.R","fields":['
        '{"name":"n","type":["null",{"type":"bytes","logicalType":"decimal","precision":9,"scale":2}]},'
        '{"name":"t","type":{"type":"long","logicalType":"timestamp-millis"}},'
        '{"name":"e","type":{"type":"enum","name":"E","symbols":["A"]}},'
        '{"name":"e2","type":["null","E"]},{"name":"u","type":{"type":"string","logicalType":"uuid"}}]}'
    )
    id_ = "12345678-1234-5678-1234-567812345678"
    data = {"n": Decimal("123.45"), "t": dt.datetime(2026, 1, 1, tzinfo=UTC), "e": "A", "e2": None, "u": id_}
    envelope = written(Datum("t", data, schema))
    assert envelope["payload"] == {"n": "MDk=", "t": 1767225600000, "e": "A", "e2": None, "u": id_}
    assert [f["type"] for f in envelope["schema"]["fields"]] == [
        "bytes",
        "int64",
        "string",
        "string",
        "string",
    ]

    several = Schema.parse('["null","string","long"]')
    assert written(Datum("t", "x", several)) == {"schema": None, "payload": "x"}
    inside = Schema.parse('{"type":"record","name":"N","fields":[{"name":"next","type":["null","N"]}]}')
    assert written(Datum("t", {"next": None}, inside)) == {"schema": None, "payload": {"next": None}}


STRANGE = st.recursive(
    st.none() | st.booleans() | TEXT | st.integers(),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(st.sampled_from(["type", "fields", "items", "field", "name", "default"]), inner)
    ),
)


@given(STRANGE)
def test_no_hostile_schema_does_more_than_fail_its_record(schema):
    data = json.dumps({"schema": schema, "payload": {"a": 1}}).encode()
    with contextlib.suppress(DataError):
        converter().deserialize([Encoded("t", data)])


def test_numbers_of_a_billion_digits_cost_nothing():
    text = '{"schema":{"type":"struct","fields":[%s]},"payload":{"d":1e999999999,"n":%s}}'
    number = json.dumps({**scaled("2"), "field": "d"})
    for kind, n in (("int64", "1e999999999"), ("double", "1e999999999"), ("int32", "5")):
        field = json.dumps({"field": "n", "type": kind})
        data = (text % (f"{number},{field}", n)).encode()
        with contextlib.suppress(DataError):
            (datum,) = converter().deserialize([Encoded("t", data)])
            storable(datum.data)
            converter().serialize([datum])


def test_a_schema_that_is_nested_too_deep_fails_its_record():
    schema: Any = {"type": "string"}
    for _ in range(500):
        schema = {"type": "array", "items": schema}
    data = json.dumps({"schema": schema, "payload": []}).encode()
    for _ in range(2):
        with contextlib.suppress(DataError):
            converter().deserialize([Encoded("t", data)])
