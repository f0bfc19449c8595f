"""The schema store on a real local log."""

from __future__ import annotations

import contextlib
import json
import threading

import pytest

from tieline.api import FatalError, Schema
from tieline.broker.local.log import LocalLog
from tieline.broker.records import ConsumedRecord, ProducerRecord
from tieline.registry.model import config_and_mode
from tieline.registry.model.avro_schema import parse
from tieline.registry.schema_topic import TOPIC, SchemaTopic, TopicSchemaStore


def stored(schema):
    """Return a schema as a registry does: in Avro Java's own text."""
    return Schema.parse(parse("AVRO", schema.text, {}).canonical)


READING = stored(Schema.named("volttron.DeviceReading"))
MESSAGE = stored(Schema.named("volttron.BusMessage"))
LONG = Schema('"long"')


@pytest.fixture
def log(tmp_path):
    log = LocalLog.open(tmp_path)
    yield log
    log.close()


def append(log, *records):
    """Write records as they are: pairs of key and value, as bytes or JSON."""
    log.create_topic(TOPIC, partitions=1)
    with log.exclusive(TOPIC) as writer:
        writer.append([ProducerRecord(TOPIC, raw(value), raw(key), partition=0) for key, value in records])


def raw(data):
    return data if data is None or isinstance(data, bytes) else json.dumps(data).encode()


def schema_record(subject, version, schema_id, text, **options):
    """Return a record as Confluent's registry writes it."""
    key = {"keytype": "SCHEMA", "subject": subject, "version": version, "magic": 1}
    value = {
        "subject": subject,
        "version": version,
        "id": schema_id,
        "schema": text,
        "deleted": False,
        **options,
    }
    return key, value


def read(log):
    records: list[ConsumedRecord] = []
    log.read(TOPIC, records.append)
    return [(json.loads(record.key or b""), json.loads(record.value or b"null")) for record in records]


def allow_all(log):
    """Let any schema follow any other."""
    append(log, ({"keytype": "CONFIG", "subject": None, "magic": 0}, {"compatibilityLevel": "NONE"}))


def test_ids_start_at_1_and_are_stable(log):
    store = TopicSchemaStore(log)
    ids = [store.register(name, schema) for name, schema in (("r", READING), ("m", MESSAGE), ("r", READING))]
    assert ids == [1, 2, 1]
    assert [store.schema(n) for n in (1, 2, 3)] == [READING, MESSAGE, None]


def test_a_schema_is_written_as_confluents_record(log):
    TopicSchemaStore(log).register("t-value", LONG)
    assert read(log) == [
        (
            {"keytype": "SCHEMA", "subject": "t-value", "version": 1, "magic": 1},
            {"subject": "t-value", "version": 1, "id": 1, "schema": '"long"', "deleted": False},
        )
    ]


def test_one_schema_under_two_subjects_has_one_id(log):
    store = TopicSchemaStore(log)
    assert [store.register(subject, LONG) for subject in ("a", "b", "a")] == [1, 1, 1]
    assert [key["subject"] for key, _ in read(log)] == ["a", "b"]


def test_an_incompatible_schema_is_rejected_and_the_field_is_named(log):
    store = TopicSchemaStore(log)
    number = {"type": "record", "name": "r", "fields": [{"name": "n", "type": "int"}]}
    wider = {**number, "fields": [{"name": "n", "type": "long"}]}
    other = {**number, "fields": [{"name": "n", "type": "string"}]}
    assert [store.register("a", Schema(json.dumps(each))) for each in (number, wider)] == [1, 2]
    with pytest.raises(FatalError, match=r"the latest version wrote .* 'n' is string here and long there"):
        store.register("a", Schema(json.dumps(other)))
    assert len(read(log)) == 2
    allow_all(log)
    assert store.register("a", Schema(json.dumps(other))) == 3


def test_a_second_schema_of_a_subject_is_its_next_version(log):
    allow_all(log)
    store = TopicSchemaStore(log)
    assert [store.register("a", schema) for schema in (LONG, READING)] == [1, 2]
    assert [key["version"] for key, _ in read(log)[1:]] == [1, 2]


def test_white_space_does_not_make_another_schema(log):
    store = TopicSchemaStore(log)
    assert store.register("a", LONG) == store.register("a", Schema(' "long" ')) == 1
    assert len(read(log)) == 1


def test_a_reopened_log_still_has_every_schema(tmp_path):
    first = LocalLog.open(tmp_path)
    allow_all(first)
    assert TopicSchemaStore(first).register("a", READING) == 1
    first.close()
    again = LocalLog.open(tmp_path)
    store = TopicSchemaStore(again)
    assert store.schema(1) == READING
    assert [store.register("a", READING), store.register("a", LONG)] == [1, 2]
    again.close()


def test_two_stores_on_one_log_see_the_schemas_of_each_other(log):
    allow_all(log)
    first, second = TopicSchemaStore(log), TopicSchemaStore(log)
    assert first.register("a", READING) == 1
    assert second.schema(1) == READING
    assert second.register("a", LONG) == 2
    assert first.register("b", LONG) == 2
    assert first.schema(2) == LONG


def test_a_later_record_that_equals_our_own_is_applied(log, monkeypatch):
    """Our own record was read before we could expect it, and so we still expect it."""
    ours, other = SchemaTopic(log), SchemaTopic(log)

    def level(topic):
        topic.catch_up()
        return topic.peek(lambda state: state.level("s"))

    def set_level(topic, name):
        topic.change(lambda state: config_and_mode.set_config(state, None, {"compatibility": name}))

    exclusive = log.exclusive

    @contextlib.contextmanager
    def read_before_the_write_returns(*arguments):
        with exclusive(*arguments) as writer:
            yield writer
        ours.catch_up()

    with monkeypatch.context() as patched:
        patched.setattr(log, "exclusive", read_before_the_write_returns)
        set_level(ours, "FULL")
    assert level(ours) == "FULL"
    for name in ("NONE", "FULL"):
        set_level(other, name)
    assert level(ours) == "FULL"


def test_two_stores_at_once_never_give_one_id_to_two_schemas(log):
    allow_all(log)
    stores = [TopicSchemaStore(log), TopicSchemaStore(log)]
    numbers = range(40)
    schemas = [Schema(json.dumps({"type": "fixed", "name": f"lab.F{n}", "size": n + 1})) for n in numbers]
    ids: list[dict[int, int]] = [{}, {}]
    gate = threading.Barrier(2)

    def register(which):
        gate.wait(10)
        for n in numbers if which == 0 else reversed(numbers):
            ids[which][n] = stores[which].register("a", schemas[n])

    threads = [threading.Thread(target=register, args=[which]) for which in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert ids[0] == ids[1]
    assert sorted(ids[0].values()) == list(range(1, 41))
    assert len(read(log)) == 41


def test_the_topic_of_confluents_registry_is_read(log):
    append(
        log,
        ({"keytype": "NOOP", "magic": 0}, None),
        ({"keytype": "CONFIG", "subject": None, "magic": 0}, {"compatibilityLevel": "FULL"}),
        ({"keytype": "MODE", "subject": "a", "magic": 0}, {"mode": "READWRITE"}),
        schema_record("a", 1, 7, '{ "type" : "long" }', schemaType="AVRO", references=[]),
        schema_record("a", 2, 8, '"string"', deleted=True),
        schema_record("p", 1, 9, 'syntax = "proto3";', schemaType="PROTOBUF"),
        schema_record("j", 1, 10, '{"type": "object"}', schemaType="JSON"),
        ({"keytype": "DELETE_SUBJECT", "subject": "a", "magic": 0}, {"subject": "a", "version": 2}),
        ({"keytype": "CONTEXT", "tenant": "t", "context": ".c", "magic": 0}, {}),
        ({"keytype": "SOMETHING_NEW"}, {"id": 500}),
        ({"keytype": "SCHEMA", "subject": "gone", "version": 1, "magic": 1}, None),
    )
    store = TopicSchemaStore(log)
    assert store.schema(7) == Schema('{"type":"long"}')
    assert store.schema(8) == Schema('"string"')  # deleted, but old records still have its id
    assert store.schema(500) is None
    with pytest.raises(ValueError, match="is Protobuf"):
        store.schema(9)
    with pytest.raises(ValueError, match="is JSON Schema"):
        store.schema(10)
    assert store.register("a", Schema('{"type":"long"}')) == 7
    assert store.register("new", LONG) == 7  # the same schema, written shorter
    assert store.register("newer", Schema('"int"')) == 11


def test_a_deleted_schema_that_is_registered_again_keeps_its_id_as_a_new_version(log):
    append(log, schema_record("a", 3, 8, '"string"', deleted=True))
    assert TopicSchemaStore(log).register("a", Schema('"string"')) == 8
    assert read(log)[-1][0]["version"] == 4


@pytest.mark.parametrize(
    "record",
    [
        (None, None),
        (b"", b""),
        (b"\xff\xfe", b"\xff"),
        (b"[" * 100_000, b"{" * 100_000),
        ([1], [2]),
        ({"keytype": "SCHEMA"}, {"id": 3, "schema": '"long"'}),
        ({"keytype": "SCHEMA", "subject": ["x"], "version": 1}, {"id": 3, "schema": '"long"'}),
        ({"keytype": "SCHEMA", "subject": "x", "version": "1"}, {"id": 3, "schema": '"long"'}),
        schema_record("x", 1, "3", '"long"'),
        schema_record("x", 1, True, '"long"'),
        schema_record("x", 1, 0, '"long"'),
        schema_record("x", 1, -3, '"long"'),
        schema_record("x", 1, 2**31, '"long"'),
        schema_record("x", 1, 10**100, '"long"'),
        schema_record("x", 1, 3, {"type": "long"}),
    ],
)
def test_invalid_records_in_the_topic_are_skipped(record, log):
    append(log, schema_record("a", 1, 5, '"long"'), record)
    store = TopicSchemaStore(log)
    assert store.schema(3) is None
    assert store.register("a", LONG) == 5
    assert store.register("b", READING) == 6


@pytest.mark.parametrize(
    "text", ["[" * 150_000, '{"type":' * 5_000 + '"long"' + "}" * 5_000, "[" * 900 + "]" * 900]
)
def test_a_hostile_schema_in_the_topic_is_only_an_error(text, log):
    append(log, schema_record("x", 1, 3, text))
    store = TopicSchemaStore(log)
    with pytest.raises(ValueError, match="not an Avro schema: nested deeper than 200"):
        store.schema(3)
    assert store.register("a", LONG) == 4
