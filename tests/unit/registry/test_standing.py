"""What stands in ``_schemas`` already: which schemas are the same, and what is not judged any more."""

from __future__ import annotations

import json

import pytest

from tieline.api import Datum, Encoded, FatalError, Schema
from tieline.broker.local.log import LocalLog
from tieline.broker.port import ProducerRecord
from tieline.converters.avro import AvroConverter, AvroConverterConfig
from tieline.registry.model import rules
from tieline.registry.model.errors import RegistryError
from tieline.registry.model.events import Content, ModeSet, Reference, SchemaStored, encode
from tieline.registry.schema_topic import TOPIC, SchemaTopic, TopicSchemaStore


@pytest.fixture
def log(tmp_path):
    opened = LocalLog.open(tmp_path)
    yield opened
    opened.close()


def standing(log, *events):
    """A topic in which another registry, or an earlier release, wrote these."""
    log.create_topic(TOPIC, partitions=1)
    with log.exclusive(TOPIC) as held:
        held.append([ProducerRecord(TOPIC, value, key, partition=0) for key, value in map(encode, events)])
    topic = SchemaTopic(log)
    topic.catch_up()
    return topic


def stored(subject, version, schema_id, schema, *references, deleted=False):
    text = schema if isinstance(schema, str) else json.dumps(schema)
    return SchemaStored(subject, version, schema_id, Content("AVRO", text, references), deleted)


def register(topic, subject, schema, *references, **more):
    asked = rules.SchemaRequest(Content("AVRO", json.dumps(schema), references), **more)
    return topic.change(lambda state: rules.register(state, subject, asked)).answer


def look_up(topic, subject, schema, *references):
    content = Content("AVRO", json.dumps(schema), references)

    def find(state):
        return rules.lookup(state, subject, rules.canonical(state, content, normalize=False))

    return topic.ask(find)


def record(*fields, name="R", **more):
    return {"type": "record", "name": name, **more, "fields": list(fields)}


def field(kind, name="f", **more):
    return {"name": name, "type": kind, **more}


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


@pytest.mark.parametrize(("one", "other"), SAME)
def test_schemas_with_one_text_in_java_are_one(log, one, other):
    topic = SchemaTopic(log)
    first = register(topic, "s", one)
    assert register(topic, "s", other) == first == look_up(topic, "s", other)
    assert register(topic, "t", other).id == first.id


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_schemas_with_another_text_in_java_are_two(log, one, other):
    topic = SchemaTopic(log)
    first = register(topic, "s", one)
    assert look_up(topic, "s", other) is None
    assert register(topic, "t", other).id == first.id + 1


@pytest.mark.parametrize(("one", "other"), SAME)
def test_what_an_earlier_release_stored_as_it_was_sent_is_the_same_schema(log, one, other):
    topic = standing(log, stored("s", 1, 7, one))
    assert look_up(topic, "s", other).id == register(topic, "s", other).id == 7
    new = register(topic, "t", other)
    assert (new.id, json.loads(new.content.text)) == (7, one)  # an id has one text
    again = SchemaTopic(log)
    again.catch_up()
    assert (again.skipped, [place.subject for place in again.snapshot().versions_of_id(7)]) == (0, ["s", "t"])


def test_of_two_ids_that_one_schema_has_of_old_the_first_is_found_and_none_is_changed(log):
    one, other = SAME[1]
    topic = standing(log, stored("b", 1, 9, other), stored("s", 1, 3, one), stored("s", 2, 9, other))
    assert register(topic, "s", one) == register(topic, "s", other) == look_up(topic, "s", one)
    assert look_up(topic, "s", one)[:3] == ("s", 1, 3)
    assert look_up(topic, "b", one)[:3] == ("b", 1, 9)  # the only one that it has there
    assert register(topic, "new", one).id == 3
    assert [topic.content(number).text for number in (3, 9)] == [json.dumps(one), json.dumps(other)]


def test_references_belong_to_what_is_the_same(log):
    topic = SchemaTopic(log)
    register(topic, "unit", UNIT)
    unit = Reference("c.x.Unit", "unit", 1)
    first = register(topic, "s", record(field("Unit"), name="c.x.R"), unit)
    assert register(topic, "s", record(field("c.x.Unit"), namespace="c.x"), unit) == first
    whole = register(topic, "t", record(field(UNIT), name="c.x.R"))
    assert whole.id != first.id


LEGACY = [
    record(field("int"), name="R", namespace="com.my-company.plant"),
    record(field("int", "a-b")),
    record(field("int", default=3_000_000_000)),
    record(field(["null", "int"], default=1)),
    {"type": "enum", "name": "E", "symbols": ["on/off"]},
    record(field({"type": {"type": "string"}})),
]


@pytest.mark.parametrize("schema", LEGACY)
def test_what_stands_is_not_judged(log, schema):
    """It is looked up, registered again, and registered elsewhere."""
    topic = standing(log, stored("s", 1, 5, schema))
    assert look_up(topic, "s", schema).id == 5
    assert register(topic, "s", schema)[:3] == ("s", 1, 5)
    assert register(topic, "t", schema)[:3] == ("t", 1, 5)


@pytest.mark.parametrize("schema", LEGACY[:2])
def test_what_stands_is_read_by_its_id(log, schema):
    found = TopicSchemaStore(log, standing(log, stored("s", 1, 5, schema))).schema(5)
    assert found is not None
    assert found.definition == schema


@pytest.mark.parametrize("schema", LEGACY)
def test_what_jvm_clients_cannot_parse_is_refused_where_it_is_new(log, schema):
    topic = SchemaTopic(log)
    with pytest.raises(RegistryError, match="clients on the JVM cannot parse it: ") as caught:
        register(topic, "s", schema)
    assert (caught.value.status, caught.value.code) == (422, 42201)


def test_what_stands_evolves_and_only_new_faults_are_refused(log):
    old = record(field("int", "a-b"), namespace="com.my-company.plant")
    topic = standing(log, stored("s", 1, 5, old))
    new = record(field("long", "a-b"), field("int", "good", default=0), namespace="com.my-company.plant")
    assert register(topic, "s", new)[:3] == ("s", 2, 6)
    worse = record(field("long", "a-b"), field("int", "c-d", default=0), namespace="com.my-company.plant")
    with pytest.raises(
        RegistryError, match=r"cannot parse it: the field 'c-d' of 'com\.my-company\.plant\.R'"
    ) as caught:
        register(topic, "s", worse)
    assert "a-b" not in str(caught.value)


def test_an_import_takes_what_another_registry_took(log):
    topic = standing(log, ModeSet("s", "IMPORT"))
    assert register(topic, "s", LEGACY[0], id=77, version=4)[:3] == ("s", 4, 77)


def test_what_stands_and_is_no_schema_harms_nothing_else(log):
    topic = standing(log, stored("s", 1, 1, "{"), stored("s", 2, 2, "[" * 90_000), stored("t", 1, 3, '"int"'))
    assert register(topic, "t", "long")[:3] == ("t", 2, 4)
    assert look_up(topic, "s", "long") is None
    with pytest.raises(RegistryError, match="an earlier version of the subject cannot be read") as caught:
        register(topic, "s", "long")
    assert caught.value.code == 40901


def test_what_is_referred_to_has_a_limit(log):
    """A thousand schemas, or fewer where each refers to many."""
    many = tuple(Reference(f"n{n}", "s", n) for n in range(1, 300))
    topic = standing(log, *(stored("s", n, n, '"int"', *many[: n - 1]) for n in range(1, 300)))
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
    topic = standing(log, stored(str(json.loads(text)), 1, 5, text))
    converter = AvroConverter(
        AvroConverterConfig.parse({}), is_key=False, schemas=TopicSchemaStore(log, topic)
    )
    (data,) = converter.serialize([Datum("t", {}, Schema(text))])
    assert data == b"\x00\x00\x00\x00\x05\x02"
    assert [place.subject for place in topic.snapshot().versions_of_id(5)] == [
        str(json.loads(text)),
        "t-value",
    ]
    assert converter.deserialize([Encoded("t", data)])[0].data == {}
