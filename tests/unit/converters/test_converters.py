from __future__ import annotations

import decimal
import json
import math
from typing import Any

import pytest

from tieline.api import ConfigError, Converter, DataError, Datum, Encoded, RetriableError, Schema
from tieline.converters.avro import AvroConverter, AvroConverterConfig
from tieline.converters.codec import AvroCodec
from tieline.converters.connect import DATA
from tieline.converters.json import JsonConverter, JsonConverterConfig
from tieline.converters.plain import BytesConverter, StringConverter, StringConverterConfig

POINT = Schema(
    '{"type": "record", "name": "lab.Point", "fields": [{"name": "v", "type": ["null", "long", "string"]}]}'
)


class Store:
    """A schema store in memory that can be unavailable; ids begin at 258, to use more than one byte."""

    def __init__(self):
        self.asked = []
        self.by_id = {}
        self.away = False

    def register(self, subject, schema):
        self._check()
        self.asked.append(subject)
        schema_id = next((i for i, known in self.by_id.items() if known == schema), 258 + len(self.by_id))
        self.by_id[schema_id] = schema
        return schema_id

    def schema(self, schema_id):
        self._check()
        return self.by_id.get(schema_id)

    def _check(self):
        if self.away:
            raise RetriableError("away")


def started(converter: type[Converter[Any]], settings=None, *, is_key=False, store=None):
    return converter(converter.config_type.parse(settings or {}), is_key=is_key, schemas=store or Store())


def failed(call, batch):
    with pytest.raises(DataError) as caught:
        call(batch)
    return {index: str(cause) for index, cause in caught.value.failures.items()}


def round_trip(converter, *values, schema=None):
    encoded = converter.serialize([Datum("t", value, schema) for value in values])
    return [datum.data for datum in converter.deserialize([Encoded("t", data) for data in encoded])]


def test_avro_is_confluents_wire_format_byte_by_byte():
    store = Store()
    out = started(AvroConverter, store=store).serialize(
        [Datum("t", {"v": 3}, POINT), Datum("t", {"v": "a"}, POINT)]
    )
    assert out == [b"\x00\x00\x00\x01\x02" + b"\x02\x06", b"\x00\x00\x00\x01\x02" + b"\x04\x02a"]
    assert store.asked == ["lab.Point"]


def test_avro_returns_the_schema_of_the_writer():
    store = Store()
    (data,) = started(AvroConverter, store=store).serialize([Datum("t", {"v": None}, POINT)])
    assert started(AvroConverter, store=store).deserialize([Encoded("u", data)]) == [
        Datum("u", {"v": None}, POINT)
    ]


@pytest.mark.parametrize(("is_key", "subject"), [(True, "t-key"), (False, "t-value")])
def test_the_subject_of_a_type_without_a_namespace_is_its_topic(is_key, subject):
    store = Store()
    started(AvroConverter, is_key=is_key, store=store).serialize([Datum("t", "x"), Datum("t", "y")])
    assert store.asked == [subject]


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ('["null","long"]', 7),
        (f'["null",{POINT.text}]', None),
        (f'{{"type":"array","items":{POINT.text}}}', []),
        (f'{{"type":"map","values":{POINT.text}}}', {}),
        ('{"type":"long","logicalType":"timestamp-millis"}', 7),
        ('{"type":"fixed","name":"F","size":1}', b"x"),
    ],
)
def test_the_subject_of_an_unnamed_type_is_its_topic_whatever_it_contains(schema, value):
    """So that changes of it are checked: a subject of its own for each text would let all pass."""
    store = Store()
    started(AvroConverter, store=store).serialize([Datum("t", value, Schema(schema))])
    assert store.asked == ["t-value"]


@pytest.mark.parametrize("value", ["x", True, 7, 2**63 - 1, 0.5, b"\x00", ""])
def test_avro_accepts_a_primitive_without_a_schema(value):
    (read,) = round_trip(started(AvroConverter), value)
    assert (read, type(read)) == (value, type(value))


def test_avro_keeps_null_as_kafkas_null_and_not_as_avros():
    converter = started(AvroConverter)
    assert converter.serialize([Datum("t", None)]) == [None]
    assert converter.deserialize([Encoded("t", None)]) == [Datum("t", None)]


def test_a_null_with_a_schema_is_avros_null():
    schema = Schema('["null", "long"]')
    converter = started(AvroConverter)
    (data,) = converter.serialize([Datum("t", None, schema)])
    assert data == b"\x00\x00\x00\x01\x02\x00"
    assert converter.deserialize([Encoded("t", data)]) == [Datum("t", None, schema)]


def test_avro_names_every_record_that_cannot_be_written_and_only_these():
    batch = [
        Datum("t", {"v": 1}, POINT),
        Datum("t", {"v": 2**63}, POINT),
        Datum("t", None),
        Datum("t", {"v": 1}),
        Datum("t", {"w": 1}, POINT),
        Datum("t", 2**63),
    ]
    failures = failed(started(AvroConverter).serialize, batch)
    assert list(failures) == [1, 3, 4, 5]
    assert "the integer 9223372036854775808 fits no branch of ['null', 'long', 'string']" in failures[1]
    assert failures[3] == "a dict without a schema cannot be Avro; give it a schema or use json"
    assert failures[4] == "lab.Point: has no field w"


def test_avro_names_every_record_that_cannot_be_read_and_only_these():
    store = Store()
    converter = started(AvroConverter, store=store)
    (good,) = converter.serialize([Datum("t", {"v": 1}, POINT)])
    assert good is not None
    batch = [good, b'{"v": 1}', None, good[:4], good[:-1], good + b"x", b"\x00\x00\x00\x00\x09\x02", b"\0"]
    failures = failed(converter.deserialize, [Encoded("t", data) for data in batch])
    assert list(failures) == [1, 3, 4, 5, 6, 7]
    assert failures[1] == (
        "not in Confluent's wire format (0x00, schema id, Avro); was it written by another converter?"
    )
    assert failures[5] == "not a lab.Point: 1 bytes left over"
    assert failures[6] == "no schema has the id 9; was it written with another registry?"


def test_an_id_of_more_than_31_bits_is_only_unknown():
    failures = failed(started(AvroConverter).deserialize, [Encoded("t", b"\x00\xff\xff\xff\xff\x02")])
    assert failures == {0: "no schema has the id 4294967295; was it written with another registry?"}


def test_an_unavailable_schema_store_is_an_outage_and_not_a_data_error():
    store = Store()
    converter = started(AvroConverter, store=store)
    store.away = True
    with pytest.raises(RetriableError):
        converter.serialize([Datum("t", {"v": 1}, POINT)])
    with pytest.raises(RetriableError):
        converter.deserialize([Encoded("t", b"\x00\x00\x00\x01\x02\x02")])
    store.away = False
    assert len(converter.serialize([Datum("t", {"v": 1}, POINT)])) == 1


def test_a_known_schema_is_not_requested_again():
    store = Store()
    converter = started(AvroConverter, store=store)
    encoded = converter.serialize([Datum("t", {"v": 1}, POINT)])
    converter.deserialize([Encoded("t", encoded[0])])
    store.away = True
    assert round_trip(converter, {"v": 2}, schema=POINT) == [{"v": 2}]


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        0,
        2**70,
        -0.0,
        1e-320,
        math.inf,
        -math.inf,
        "é\U0001f600\x00\n",
        [],
        {},
        {"a": [1, {"b": [None, True, 2**63, 0.1]}], "$": ".", "": ""},
    ],
)
def test_json_is_exact(value):
    (read,) = round_trip(started(JsonConverter), value)
    assert repr(read) == repr(value)


def test_json_keeps_nan():
    (read,) = round_trip(started(JsonConverter), math.nan)
    assert math.isnan(read)


def test_json_is_compact_utf_8():
    assert started(JsonConverter).serialize([Datum("t", {"a": ["é", 1.0]})]) == ['{"a":["é",1.0]}'.encode()]


def test_json_names_what_it_cannot_write_and_read():
    converter = started(JsonConverter)
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    written = failed(converter.serialize, [Datum("t", v) for v in (1, b"x", "\ud800", deep, None)])
    assert list(written) == [1, 2, 3]
    batch = [b"1", b"{", b"\xff\xfe1", b"[" * 100_000, b"1" * 5000, b" ", b"", None]
    assert list(failed(converter.deserialize, [Encoded("t", data) for data in batch])) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("converter", "settings"),
    [(JsonConverter, {}), (JsonConverter, {"schemas.enable": "true"}), (AvroConverter, {})],
)
def test_an_empty_value_is_read_as_a_tombstone(converter, settings):
    read = started(converter, settings).deserialize([Encoded("t", b""), Encoded("t", None)])
    assert read == [Datum("t", None), Datum("t", None)]


@pytest.mark.parametrize(
    ("value", "schema"),
    [
        ("x", {"type": "string", "optional": False}),
        (True, {"type": "boolean", "optional": False}),
        (1, {"type": "int64", "optional": False}),
        (1.5, {"type": "double", "optional": False}),
        (2**63, None),
        ({"a": 1}, None),
        ([1], None),
    ],
)
def test_json_with_schemas_is_kafka_connects_envelope(value, schema):
    converter = started(JsonConverter, {"schemas.enable": "true"})
    (data,) = converter.serialize([Datum("t", value)])
    assert data is not None
    assert json.loads(data) == {"schema": schema, "payload": value}
    known = schema and Schema(json.dumps({"int64": "long"}.get(schema["type"], schema["type"])))
    assert converter.deserialize([Encoded("t", data)]) == [Datum("t", value, known)]
    assert converter.serialize([Datum("t", None)]) == [None]


@pytest.mark.parametrize(
    "data", [b"1", b'"x"', b'{"payload":1}', b'{"schema":null,"payload":1,"x":2}', b"{}"]
)
def test_json_without_the_configured_envelope_is_a_data_error(data):
    converter = started(JsonConverter, {"schemas.enable": "true"})
    assert list(failed(converter.deserialize, [Encoded("t", data)])) == [0]


def test_a_number_that_no_decimal_holds_is_a_data_error_of_its_record_alone():
    schema = {"type": "bytes", "name": f"{DATA}Decimal", "parameters": {"scale": "2"}}
    values = [b"1.5", b"1e999999999999999999999", b'"MDk="']
    batch = [Encoded("t", b'{"schema":%b,"payload":%b}' % (json.dumps(schema).encode(), v)) for v in values]
    assert list(failed(started(JsonConverter, {"schemas.enable": "true"}).deserialize, batch)) == [1]


@pytest.mark.parametrize(
    ("which", "read"), [("scale", b"09"), ("connect.decimal.precision", decimal.Decimal("123.45"))]
)
def test_a_decimal_without_a_usable_scale_is_read_as_bytes_and_needs_no_precision(which, read):
    parameters = {"scale": "2", which: math.inf}
    schema = {"type": "bytes", "name": f"{DATA}Decimal", "parameters": parameters}
    converter = started(JsonConverter, {"schemas.enable": "true"})
    data = json.dumps({"schema": schema, "payload": "MDk="}).encode()
    assert [datum.data for datum in converter.deserialize([Encoded("t", data)])] == [read]


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "utf-16"])
def test_string_keeps_text_in_its_encoding(encoding):
    converter = started(StringConverter, {"converter.encoding": encoding})
    assert round_trip(converter, "é\n", "", None) == ["é\n", "", None]
    assert converter.serialize([Datum("t", "é")]) == ["é".encode(encoding)]


def test_string_writes_other_data_as_python_prints_it():
    assert started(StringConverter).serialize([Datum("t", 1.5), Datum("t", [1])]) == [b"1.5", b"[1]"]


def test_string_names_what_its_encoding_cannot_carry():
    converter = started(StringConverter, {"converter.encoding": "ascii"})
    assert list(failed(converter.serialize, [Datum("t", "a"), Datum("t", "é")])) == [1]
    assert list(failed(converter.deserialize, [Encoded("t", b"\xff"), Encoded("t", b"a")])) == [0]


def test_an_unknown_encoding_is_a_configuration_problem():
    with pytest.raises(ConfigError, match="unknown encoding 'utf-9'; use utf-8"):
        StringConverterConfig.parse({"converter.encoding": "utf-9"})
    with pytest.raises(ConfigError, match="unknown encoding 'hex'"):
        StringConverterConfig.parse({"converter.encoding": "hex"})


def test_bytes_are_kept_and_other_data_is_rejected():
    converter = started(BytesConverter)
    assert round_trip(converter, b"\x00\xff", b"", None) == [b"\x00\xff", b"", None]
    assert failed(converter.serialize, [Datum("t", b"x"), Datum("t", "x")]) == {
        1: "the bytes converter writes bytes, not str"
    }


def test_the_settings_have_kafka_connects_names():
    assert JsonConverterConfig.keys() == [
        "schemas.enable",
        "schemas.cache.size",
        "replace.null.with.default",
    ]
    assert StringConverterConfig.keys() == ["converter.encoding"]
    assert AvroConverterConfig.keys() == ["schema.registry.url"]


def test_a_name_without_a_namespace_keeps_none_within_a_namespaced_record_of_an_array():
    inner = {"type": "record", "name": "Inner", "namespace": "", "fields": []}
    outer = {"type": "record", "name": "lab.R", "fields": [{"name": "f", "type": ["null", inner]}]}
    for definition in ({"type": "array", "items": outer}, ["null", {"type": "map", "values": outer}]):
        schema = Schema.parse(json.dumps(definition))
        value = [{"f": {}}] if isinstance(definition, dict) else {"k": {"f": {}}}
        assert AvroCodec.of(schema).decode(AvroCodec.of(schema).encode(value)) == value
