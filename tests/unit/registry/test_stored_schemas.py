"""Schemas that exist in ``_schemas``: which are the same, and that no new rule rejects them."""

from __future__ import annotations

import json

import pytest

from tieline.api import Datum, Encoded, FatalError, Schema
from tieline.broker.local.log import LocalLog
from tieline.broker.records import ProducerRecord
from tieline.converters.avro import AvroConverter, AvroConverterConfig
from tieline.registry.model import rules, schema_lookup
from tieline.registry.model.errors import RegistryError
from tieline.registry.model.events import Content, ModeSet, Reference, SchemaStored, encode
from tieline.registry.schema_topic import TOPIC, SchemaTopic, TopicSchemaStore


@pytest.fixture
def log(tmp_path):
    log = LocalLog.open(tmp_path)
    yield log
    log.close()


def topic_with(log, *events):
    """Return a topic in which another registry or an earlier release wrote these events."""
    log.create_topic(TOPIC, partitions=1)
    with log.exclusive(TOPIC) as writer:
        writer.append([ProducerRecord(TOPIC, value, key, partition=0) for key, value in map(encode, events)])
    topic = SchemaTopic(log)
    topic.catch_up()
    return topic


def stored(subject, version, schema_id, schema, *references, deleted=False):
    text = schema if isinstance(schema, str) else json.dumps(schema)
    return SchemaStored(subject, version, schema_id, Content("AVRO", text, references), deleted)


def register(topic, subject, schema, *references, **imported):
    request = rules.SchemaRequest(Content("AVRO", json.dumps(schema), references), **imported)
    return topic.change(lambda state: rules.register(state, subject, request)).answer


def look_up(topic, subject, schema, *references):
    content = Content("AVRO", json.dumps(schema), references)

    def find(state):
        return schema_lookup.find_version(
            state, subject, schema_lookup.canonical(state, content, normalize=False)
        )

    return topic.ask(find)


def record(*fields, name="R", **attributes):
    return {"type": "record", "name": name, **attributes, "fields": list(fields)}


def field(kind, name="f", **attributes):
    return {"name": name, "type": kind, **attributes}


UNIT = {"type": "enum", "name": "Unit", "namespace": "c.x", "symbols": ["C"]}
SAME = [
    (record(field("string")), record(field({"type": "string"}))),
    (record(field("int"), name="c.x.R"), record(field("int"), namespace="c.x")),
    (record(field(UNIT), name="c.x.R"), record(field({**UNIT, "name": "c.x.Unit"}), namespace="c.x")),
    (
        record(field(UNIT), field("Unit", "g"), name="c.x.R"),
        record(field(UNIT), field("c.x.Unit", "g"), name="c.x.R"),
    ),
    (
        record(field("int"), doc="d"),
        {"doc": "d", "fields": [{"type": "int", "name": "f"}], "name": "R", "type": "record"},
    ),
    (record(field("int", order="ascending", aliases=[])), record(field("int"))),
    ({"type": "array", "items": {"type": "int"}}, {"items": "int", "type": "array"}),
    (["null", {"type": "long"}], ["null", "long"]),
    ({"type": "bytes"}, "bytes"),
]
DIFFERENT = [
    (record(field("int")), record(field("int"), doc="d")),
    (record(field("int")), record(field("int", default=1))),
    (record(field("int")), record(field({"type": "int", "logicalType": "date"}))),
    (record(field("int")), record(field("int", aliases=["g"]))),
    (record(field("int"), a=1, b=2), record(field("int"), b=2, a=1)),
    (record(field("int"), name="c.x.R"), record(field("int"), name="c.y.R")),
    (["null", "long"], ["long", "null"]),
]


@pytest.mark.parametrize(("first", "second"), SAME)
def test_schemas_with_the_same_text_in_java_are_the_same(log, first, second):
    topic = SchemaTopic(log)
    version = register(topic, "s", first)
    assert register(topic, "s", second) == version == look_up(topic, "s", second)
    assert register(topic, "t", second).id == version.id


@pytest.mark.parametrize(("first", "second"), DIFFERENT)
def test_schemas_with_different_texts_in_java_are_different(log, first, second):
    topic = SchemaTopic(log)
    version = register(topic, "s", first)
    assert look_up(topic, "s", second) is None
    assert register(topic, "t", second).id == version.id + 1


@pytest.mark.parametrize(("first", "second"), SAME)
def test_a_schema_that_an_earlier_release_stored_as_sent_is_recognized(log, first, second):
    topic = topic_with(log, stored("s", 1, 7, first))
    assert look_up(topic, "s", second).id == register(topic, "s", second).id == 7
    new = register(topic, "t", second)
    assert (new.id, json.loads(new.content.text)) == (7, first)  # an id has one text
    again = SchemaTopic(log)
    again.catch_up()
    subjects = [version.subject for version in again.snapshot().versions_of_id(7)]
    assert (again.skipped, subjects) == (0, ["s", "t"])


def test_the_lower_of_two_ids_of_one_schema_is_used_and_both_keep_their_texts(log):
    first, second = SAME[1]
    topic = topic_with(log, stored("b", 1, 9, second), stored("s", 1, 3, first), stored("s", 2, 9, second))
    assert register(topic, "s", first) == register(topic, "s", second) == look_up(topic, "s", first)
    assert look_up(topic, "s", first)[:3] == ("s", 1, 3)
    assert look_up(topic, "b", first)[:3] == ("b", 1, 9)  # the only id that it has there
    assert register(topic, "new", first).id == 3
    assert [topic.content(number).text for number in (3, 9)] == [json.dumps(first), json.dumps(second)]


def test_schemas_with_different_references_are_different(log):
    topic = SchemaTopic(log)
    register(topic, "unit", UNIT)
    unit = Reference("c.x.Unit", "unit", 1)
    first = register(topic, "s", record(field("Unit"), name="c.x.R"), unit)
    assert register(topic, "s", record(field("c.x.Unit"), namespace="c.x"), unit) == first
    inlined = register(topic, "t", record(field(UNIT), name="c.x.R"))
    assert inlined.id != first.id


LEGACY = [
    record(field("int"), name="R", namespace="com.my-company.plant"),
    record(field("int", "a-b")),
    record(field("int", default=3_000_000_000)),
    record(field(["null", "int"], default=1)),
    {"type": "enum", "name": "E", "symbols": ["on/off"]},
    record(field({"type": {"type": "string"}})),
]


@pytest.mark.parametrize("schema", LEGACY)
def test_a_stored_schema_is_registered_again_whatever_its_faults(log, schema):
    """It is also looked up, and registered in another subject."""
    topic = topic_with(log, stored("s", 1, 5, schema))
    assert look_up(topic, "s", schema).id == 5
    assert register(topic, "s", schema)[:3] == ("s", 1, 5)
    assert register(topic, "t", schema)[:3] == ("t", 1, 5)


@pytest.mark.parametrize("schema", LEGACY[:2])
def test_a_stored_schema_is_read_by_its_id_whatever_its_faults(log, schema):
    read = TopicSchemaStore(log, topic_with(log, stored("s", 1, 5, schema))).schema(5)
    assert read is not None
    assert read.definition == schema


@pytest.mark.parametrize("schema", LEGACY)
def test_a_new_schema_that_jvm_clients_cannot_parse_is_rejected(log, schema):
    topic = SchemaTopic(log)
    with pytest.raises(RegistryError, match="clients on the JVM cannot parse it: ") as caught:
        register(topic, "s", schema)
    assert (caught.value.status, caught.value.code) == (422, 42201)


def test_a_stored_schema_evolves_and_only_new_faults_are_rejected(log):
    old = record(field("int", "a-b"), namespace="com.my-company.plant")
    topic = topic_with(log, stored("s", 1, 5, old))
    new = record(field("long", "a-b"), field("int", "good", default=0), namespace="com.my-company.plant")
    assert register(topic, "s", new)[:3] == ("s", 2, 6)
    worse = record(field("long", "a-b"), field("int", "c-d", default=0), namespace="com.my-company.plant")
    with pytest.raises(
        RegistryError, match=r"cannot parse it: the field 'c-d' of 'com\.my-company\.plant\.R'"
    ) as caught:
        register(topic, "s", worse)
    assert "a-b" not in str(caught.value)


def test_an_import_accepts_a_schema_that_jvm_clients_cannot_parse(log):
    topic = topic_with(log, ModeSet("s", "IMPORT"))
    assert register(topic, "s", LEGACY[0], id=77, version=4)[:3] == ("s", 4, 77)


def test_a_stored_text_that_is_not_a_schema_does_not_affect_other_schemas(log):
    topic = topic_with(
        log, stored("s", 1, 1, "{"), stored("s", 2, 2, "[" * 90_000), stored("t", 1, 3, '"int"')
    )
    assert register(topic, "t", "long")[:3] == ("t", 2, 4)
    assert look_up(topic, "s", "long") is None
    with pytest.raises(RegistryError, match="an earlier version of the subject cannot be read") as caught:
        register(topic, "s", "long")
    assert caught.value.code == 40901


@pytest.mark.slow
def test_the_number_of_references_is_limited(log):
    """At most a thousand schemas, and fewer if each refers to many."""
    many = tuple(Reference(f"n{n}", "s", n) for n in range(1, 300))
    topic = topic_with(log, *(stored("s", n, n, '"int"', *many[: n - 1]) for n in range(1, 300)))
    with pytest.raises(RegistryError, match="it refers to too much") as caught:
        register(topic, "t", "int", *many)
    assert caught.value.code == 42201


def test_a_change_of_a_union_is_checked(log):
    converter = AvroConverter(AvroConverterConfig.parse({}), is_key=False, schemas=TopicSchemaStore(log))
    text = '["null",{{"type":"record","name":"a.R","fields":[{{"name":"f","type":"{}"}}]}}]'
    old, wider, other = (Schema(text.format(kind)) for kind in ("int", "long", "string"))
    converter.serialize([Datum("t", {"f": 1}, old), Datum("t", {"f": 1}, wider)])
    with pytest.raises(
        FatalError, match=r"cannot be registered under t-value: .* 'f' is string here and long there"
    ):
        converter.serialize([Datum("t", {"f": "x"}, other)])


def test_a_union_that_an_earlier_release_named_by_its_text_keeps_its_id(log):
    text = '["null",{"type":"record","name":"a.R","fields":[]}]'
    topic = topic_with(log, stored(str(json.loads(text)), 1, 5, text))
    converter = AvroConverter(
        AvroConverterConfig.parse({}), is_key=False, schemas=TopicSchemaStore(log, topic)
    )
    (data,) = converter.serialize([Datum("t", {}, Schema(text))])
    assert data == b"\x00\x00\x00\x00\x05\x02"
    assert [version.subject for version in topic.snapshot().versions_of_id(5)] == [
        str(json.loads(text)),
        "t-value",
    ]
    assert converter.deserialize([Encoded("t", data)])[0].data == {}
