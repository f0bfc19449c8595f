from __future__ import annotations

import pytest

from tieline.api import Schema


def test_white_space_does_not_make_another_schema_but_documentation_does():
    one, other = Schema('{"type": "map",  "values": "long"}'), Schema('{"type":"map","values":"long"}')
    assert one == other
    assert hash(one) == hash(other)
    assert one.text == '{"type":"map","values":"long"}'
    assert one != Schema('{"type":"map","values":"long","doc":"x"}')


def test_the_same_text_is_the_same_object():
    assert Schema.parse('"long"') is Schema.parse('"long"')
    assert Schema.named("volttron.DeviceReading") is Schema.named("volttron.DeviceReading")


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ('"long"', "long"),
        ('{"type": "long"}', "long"),
        ('{"type": "array", "items": "long"}', "array"),
        ('{"type": "fixed", "name": "F", "size": 1}', "F"),
        ('{"type": "fixed", "name": "F", "namespace": "lab", "size": 1}', "lab.F"),
        ('["null", "long"]', "union"),
    ],
)
def test_a_schema_has_its_full_name_or_its_type(text, name):
    assert Schema(text).name == name


@pytest.mark.parametrize(
    "text",
    [
        "",
        "long",
        "{",
        "{}",
        "null",
        "5",
        '"lab.Unknown"',
        '{"type": "record", "name": "R", "fields": 5}',
        '{"type": "enum", "name": "E", "symbols": ["a", "a"]}',
        '{"type": "array"}',
        "[" * 100_000,
        '{"type": "nonsense", "name": "R", "__fastavro_parsed": true, "__named_schemas": {}}',
        '["null", {"type": "nonsense", "name": "R", "__fastavro_parsed": true, "__named_schemas": {}}]',
        '{"type":' * 300 + '"long"' + "}" * 300,
    ],
)
def test_a_text_that_is_not_a_schema_is_a_value_error(text):
    with pytest.raises(ValueError, match="not an Avro schema"):
        Schema(text)


def test_a_schema_that_is_not_installed_is_named():
    with pytest.raises(FileNotFoundError, match="Nothing"):
        Schema.named("volttron.Nothing")
