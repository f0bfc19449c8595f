"""Parsing schemas and writing their texts."""

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


def test_a_reference_is_written_where_it_is_first_named():
    text = record("lab.Unit", ["null", "lab.Pair"], {"type": "array", "items": "lab.Unit"}, "Plain")
    inlined = Schema.parse(parse("AVRO", text, texts(UNIT, PAIR, PLAIN)).inlined)
    first, second, third, fourth = (field["type"] for field in inlined.definition["fields"])
    assert (first["name"], first["namespace"], first["symbols"]) == ("Unit", "lab", ["C", "F"])
    assert second[1]["fields"][0]["type"] == "Unit"
    assert third["items"] == "lab.Unit"
    assert (fourth["name"], fourth["namespace"], fourth["size"]) == ("Plain", "", 2)


def test_schemas_that_differ_only_in_their_order_are_equal_when_normalized():
    first = parse("AVRO", '{"type":"record","name":"R","a":{"y":1,"x":2},"doc":"d","fields":[],"b":3}', {})
    second = parse(
        "AVRO", '{"b":3, "doc":"d", "a":{"x":2,"y":1}, "name":"R", "fields":[ ], "type":"record"}', {}
    )
    assert first.canonical != second.canonical
    assert first.normalized == second.normalized
    assert first.normalized == '{"type":"record","name":"R","doc":"d","fields":[],"a":{"x":2,"y":1},"b":3}'
    assert parse("AVRO", '{"type":"long"}', {}).normalized == '"long"'


@pytest.mark.parametrize(
    "text",
    ["", "{", "7", "null", '"foo"', '{"type": "record"}', "[" * 10_000, record("lab.Unit"), '{"type": 7}'],
)
def test_a_text_that_is_not_a_schema_is_rejected_with_the_reason(text):
    with pytest.raises(InvalidSchemaError, match="not an Avro schema"):
        parse("AVRO", text, {})


@pytest.mark.parametrize("kind", ["JSON", "PROTOBUF", "", "x" * 1000])
def test_other_types_of_schemas_are_rejected_with_the_reason(kind):
    with pytest.raises(InvalidSchemaError, match="since they cannot be checked here"):
        parse(kind, "{}", {})
