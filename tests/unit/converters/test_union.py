from __future__ import annotations

import datetime
import decimal
import json
from typing import Any

import pytest

from tieline.api import Schema
from tieline.converters.codec import AvroCodec
from tieline.converters.union import compile_tagger

A = {"type": "record", "name": "lab.A", "fields": [{"name": "x", "type": "long"}]}
B = {
    "type": "record",
    "name": "lab.B",
    "fields": [{"name": "x", "type": "long"}, {"name": "y", "type": "long"}],
}
COLOUR = {"type": "enum", "name": "lab.Colour", "symbols": ["RED", "BLUE"]}
PAIR = {"type": "fixed", "name": "lab.Pair", "size": 2}


def tagged(schema, value):
    return compile_tagger(Schema(json.dumps(schema)).parsed)(value)


def round_trip(schema, value):
    codec = AvroCodec(Schema(json.dumps(schema)))
    return codec.decode(codec.encode(value))


def refused(schema, value):
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the message is what the tests look at
        AvroCodec(Schema(json.dumps(schema))).encode(value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("union", "value", "branch"),
    [
        (["long", "boolean"], True, "boolean"),
        (["boolean", "long"], 1, "long"),
        (["double", "long"], 1, "long"),
        (["long", "double"], 1.0, "double"),
        (["int", "long"], 2**31 - 1, "int"),
        (["int", "long"], 2**31, "long"),
        (["int", "long"], -(2**31) - 1, "long"),
        (["long", "int"], 5, "int"),
        (["string", "bytes"], "x", "string"),
        (["string", "bytes"], b"x", "bytes"),
        (["null", "string"], None, "null"),
        (["string", COLOUR], "RED", "string"),
        (["null", COLOUR], "RED", "lab.Colour"),
        (["null", PAIR], b"xy", "lab.Pair"),
        (["float", "null"], 1.5, "float"),
        (["float", "double"], 1.5, "double"),
        ([A, B, {"type": "map", "values": "long"}], {"x": 1}, "lab.A"),
        ([A, B, {"type": "map", "values": "long"}], {"x": 1, "y": 2}, "lab.B"),
        ([A, B, {"type": "map", "values": "long"}], {"y": 2}, "map"),
        ([A, {"type": "map", "values": "long"}], {}, "map"),
        (["null", {"type": "array", "items": "long"}], [1], "array"),
        (["null", {"type": "array", "items": "long"}], (1,), "array"),
    ],
)
def test_the_branch_is_the_one_of_the_exact_type(union, value, branch):
    assert tagged(union, value)[0] == branch


@pytest.mark.parametrize(
    ("schema", "value", "message"),
    [
        (
            ["long", "double"],
            2**63,
            "value: the integer 9223372036854775808 fits no branch of ['long', 'double']",
        ),
        (["int", "string"], 2**31, "value: the integer 2147483648 fits no branch of ['int', 'string']"),
        (["null", "double"], 1, "value: the integer 1 fits no branch of ['null', 'double']"),
        (["null", "string"], b"x", "value: no branch for bytes in ['null', 'string']"),
        (["long", "string"], True, "value: no branch for bool in ['long', 'string']"),
        ([A, B], {"y": 1}, "value: no branch for dict in ['lab.A', 'lab.B']"),
        (["null", "float"], 1e300, "value: 1e+300 is too large for a float"),
        ("long", True, "value: is a long, not bool"),
        ("long", 1.5, "value: is a long, not float"),
        ("long", 2**63, "value: the integer 9223372036854775808 is out of the range of long"),
        ("int", 2**31, "value: the integer 2147483648 is out of the range of int"),
        ("double", True, "value: is a double, not bool"),
        ("double", "1", "value: is a double, not str"),
        ("double", 2**53 + 1, "value: the integer 9007199254740993 would be rounded by a double"),
        ("double", 2**64, "value: the integer 18446744073709551616 would be rounded by a double"),
        ("float", 2**24 + 1, "value: the integer 16777217 would be rounded by a float"),
        ("boolean", 1, "value: is a boolean, not int"),
        ("null", 0, "value: is a null, not int"),
        ("string", None, "value: is a string, not NoneType"),
        ("bytes", "x", "value: is a bytes, not str"),
        (A, {"x": 1, "z": 2, "q": 3}, "lab.A: has no field q, z"),
        (A, [1], "lab.A: is a record, which is a dict here, not list"),
        (A, {}, "no value and no default for x"),
        (A, {"x": "1"}, "lab.A.x: is a long, not str"),
        ({"type": "array", "items": A}, [{"x": 1}, {"x": None}], "lab.A.x: is a long, not NoneType"),
        ({"type": "array", "items": "long"}, {"a": 1}, "value: is an array, which is a list here, not dict"),
        ({"type": "array", "items": "long"}, "ab", "value: is an array, which is a list here, not str"),
        ({"type": "map", "values": "long"}, [1], "value: is a map, which is a dict here, not list"),
        (
            {"type": "map", "values": ["null", "long"]},
            {"a": "x"},
            "value{}: no branch for str in ['null', 'long']",
        ),
        (COLOUR, "GREEN", "'GREEN' is not in list"),
        (PAIR, b"x", "data of length 1 does not match schema size"),
        ("string", "\ud800", "'utf-8' codec can't encode character"),
        ({"type": "map", "values": "long"}, {1: 2}, "does not match map: TypeError"),
    ],
)
def test_a_value_that_does_not_match_is_an_error_with_its_path(schema, value, message):
    assert refused(schema, value).startswith(message)


@pytest.mark.parametrize(
    ("schema", "value"), [("double", 3), ("double", 2**53), ("float", 2**24), (["double"], 1.0)]
)
def test_an_integer_becomes_a_double_if_it_is_exact(schema, value):
    read = round_trip(schema, value)
    assert (read, type(read)) == (value, float)


def test_a_field_that_is_missing_gets_its_default():
    schema = {**A, "fields": [{"name": "x", "type": ["null", "long"], "default": None}]}
    assert round_trip(schema, {}) == {"x": None}


def test_unions_inside_records_maps_and_arrays_are_tagged():
    schema = {
        "type": "record",
        "name": "lab.Outer",
        "fields": [
            {"name": "a", "type": {"type": "array", "items": ["null", A]}},
            {"name": "m", "type": {"type": "map", "values": ["long", "double", "lab.A"]}},
        ],
    }
    value = {"a": [None, {"x": 1}], "m": {"i": 1, "d": 1.0, "r": {"x": 2}}}
    assert tagged(schema, value) == {
        "a": [("null", None), ("lab.A", {"x": 1})],
        "m": {"i": ("long", 1), "d": ("double", 1.0), "r": ("lab.A", {"x": 2})},
    }
    assert round_trip(schema, value) == value


def test_a_record_inside_itself_is_tagged_at_every_depth():
    node = {
        "type": "record",
        "name": "lab.Node",
        "fields": [
            {"name": "value", "type": ["int", "long"]},
            {"name": "next", "type": ["null", "lab.Node"]},
        ],
    }
    value = {"value": 1, "next": {"value": 2**40, "next": None}}
    assert round_trip(node, value) == value
    assert refused(node, {"value": 1, "next": {"value": "x", "next": None}}).startswith(
        "lab.Node.value: no branch"
    )


def test_a_record_nested_too_deep_to_be_written_is_a_value_error():
    value: Any = None
    for _ in range(5000):
        value = {"next": value}
    node = {"type": "record", "name": "lab.Node", "fields": [{"name": "next", "type": ["null", "lab.Node"]}]}
    assert "RecursionError" in refused(node, value)


def test_the_callers_data_is_not_changed():
    value = {"a": [None, {"x": 1}]}
    tagged({"type": "map", "values": {"type": "array", "items": ["null", A]}}, value)
    assert value == {"a": [None, {"x": 1}]}


def test_logical_types_take_what_fastavro_takes():

    money = {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}
    day = {"type": "int", "logicalType": "date"}
    assert round_trip(money, decimal.Decimal("1.25")) == decimal.Decimal("1.25")
    assert round_trip(["null", day], datetime.date(2024, 2, 29)) == datetime.date(2024, 2, 29)
