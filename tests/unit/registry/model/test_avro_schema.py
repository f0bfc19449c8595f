"""Schemas as they are read and compared."""

from __future__ import annotations

import json

import pytest

from tieline.api import Schema
from tieline.registry.model.avro_schema import InvalidSchemaError, parse

UNIT = {"type": "enum", "name": "Unit", "namespace": "lab", "symbols": ["C", "F"]}
PAIR = {"type": "record", "name": "lab.Pair", "fields": [{"name": "a", "type": "Unit"}]}
PLAIN = {"type": "fixed", "name": "Plain", "size": 2}


def record(*types):
    fields = [{"name": f"f{n}", "type": kind} for n, kind in enumerate(types)]
    return json.dumps({"type": "record", "name": "other.R", "fields": fields})


def texts(*schemas):
    return {schema["name"]: json.dumps(schema) for schema in schemas}


def test_what_a_schema_refers_to_is_written_where_it_is_named_first():
    text = record("lab.Unit", ["null", "lab.Pair"], {"type": "array", "items": "lab.Unit"}, "Plain")
    whole = Schema.parse(parse("AVRO", text, texts(UNIT, PAIR, PLAIN)).inlined)
    first, second, third, fourth = (field["type"] for field in whole.definition["fields"])
    assert (first["name"], first["namespace"], first["symbols"]) == ("Unit", "lab", ["C", "F"])
    assert second[1]["fields"][0]["type"] == "Unit"
    assert third["items"] == "lab.Unit"
    assert (fourth["name"], fourth["namespace"], fourth["size"]) == ("Plain", "", 2)


def test_schemas_that_say_the_same_in_another_order_are_one_when_they_are_normalized():
    one = parse("AVRO", '{"type":"record","name":"R","a":{"y":1,"x":2},"doc":"d","fields":[],"b":3}', {})
    other = parse(
        "AVRO", '{"b":3, "doc":"d", "a":{"x":2,"y":1}, "name":"R", "fields":[ ], "type":"record"}', {}
    )
    assert one.canonical != other.canonical
    assert one.normalized == other.normalized
    assert one.normalized == '{"type":"record","name":"R","doc":"d","fields":[],"a":{"x":2,"y":1},"b":3}'
    assert parse("AVRO", '{"type":"long"}', {}).normalized == '"long"'


@pytest.mark.parametrize(
    "text",
    ["", "{", "7", "null", '"foo"', '{"type": "record"}', "[" * 10_000, record("lab.Unit"), '{"type": 7}'],
)
def test_what_is_no_schema_is_refused_with_a_sentence(text):
    with pytest.raises(InvalidSchemaError, match="not an Avro schema"):
        parse("AVRO", text, {})


@pytest.mark.parametrize("kind", ["JSON", "PROTOBUF", "", "x" * 1000])
def test_other_types_are_refused_with_the_reason(kind):
    with pytest.raises(InvalidSchemaError, match="since they cannot be checked here"):
        parse(kind, "{}", {})
