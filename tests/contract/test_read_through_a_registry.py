"""A worker reads what Confluent's own serializer wrote with a registry over HTTP."""

from __future__ import annotations

import json

import pytest
from confluent_kafka.schema_registry import Schema as Sent
from confluent_kafka.schema_registry import SchemaReference, SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroSerializer
from confluent_kafka.serialization import MessageField, SerializationContext

from tieline.api import DataError, Encoded
from tieline.broker.local.log import LocalLog
from tieline.broker.records import ProducerRecord
from tieline.converters.avro import AvroConverter, AvroConverterConfig
from tieline.registry.client import RemoteSchemaStore
from tieline.registry.http.server import RegistryConfig, RegistryServer
from tieline.registry.model.events import Content, SchemaStored, encode
from tieline.registry.schema_topic import SchemaTopic, TopicSchemaStore


@pytest.fixture
def log(tmp_path):
    log = LocalLog.open(tmp_path)
    yield log
    log.close()


@pytest.fixture
def url(log):
    server = RegistryServer(SchemaTopic(log), RegistryConfig.parse({"listen": "127.0.0.1:0"}))
    server.start()
    yield server.url
    server.stop()


@pytest.fixture(params=["over HTTP", "from the topic"])
def converter(request, url, log):
    """The avro converter of a worker, with each of the two schema stores."""
    store = RemoteSchemaStore({"url": url}) if request.param == "over HTTP" else TopicSchemaStore(log)
    yield AvroConverter(AvroConverterConfig.parse({}), is_key=False, schemas=store)
    if isinstance(store, RemoteSchemaStore):
        store.close()


def record(name, **fields):
    parts = [{"name": field, "type": kind} for field, kind in fields.items()]
    return json.dumps({"type": "record", "name": name, "namespace": "lab", "fields": parts})


def test_references_of_references_are_fetched(url, converter):
    with SchemaRegistryClient({"url": url}) as client:
        unit = {"type": "enum", "name": "lab.Unit", "symbols": ["C", "F"]}
        client.register_schema("unit", Sent(json.dumps(unit), "AVRO"))
        to_unit = SchemaReference("lab.Unit", "unit", 1)
        client.register_schema("value", Sent(record("Value", v="double", unit="lab.Unit"), "AVRO", [to_unit]))
        to_value = SchemaReference("lab.Value", "value", 1)
        whole = Sent(
            record("Reading", value="lab.Value", unit="lab.Unit"),
            "AVRO",
            [to_value, to_unit],
        )
        serializer = AvroSerializer(client, whole)
        datum = {"value": {"v": 20.5, "unit": "C"}, "unit": "F"}
        data = serializer(datum, SerializationContext("t", MessageField.VALUE))

    (read,) = converter.deserialize([Encoded("t", data)])
    assert read.data == datum
    assert read.schema is not None
    assert read.schema.name == "lab.Reading"


@pytest.mark.parametrize(("kind", "name"), [("JSON", "JSON Schema"), ("PROTOBUF", "Protobuf")])
def test_a_record_with_another_kind_of_schema_fails_with_the_fix(log, url, converter, kind, name):
    key, value = encode(SchemaStored("s", 1, 77, Content(kind, "{}")))
    log.create_topic("_schemas", partitions=1, config={"cleanup.policy": "compact"})
    with log.exclusive("_schemas", 5.0) as writer:
        writer.append([ProducerRecord("_schemas", value, key, partition=0)])

    with pytest.raises(DataError) as raised:
        converter.deserialize([Encoded("t", b"\0\0\0\0\x4d{}")])

    message = str(raised.value.failures[0])
    assert f"id 77 is {name} (schemaType {kind})" in message
    assert "value.converter" in message
