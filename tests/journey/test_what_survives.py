"""What a record carries is what a sink is given, on either home of the broker."""

import pytest

from tieline.api import Schema, SourceRecord
from tieline.broker.records import ConsumedRecord, Unit
from tieline.converters.avro import AvroConverter, AvroConverterConfig
from tieline.converters.plain import StringConverter, StringConverterConfig
from tieline.registry.schema_topic import TopicSchemaStore
from tieline.runtime.errors.failure_table import Stage
from tieline.runtime.sink.conversion import SinkConversion
from tieline.runtime.source.conversion import SourceConversion
from tieline.runtime.task.environment import TaskEnvironment
from tieline.runtime.task.transform_chain import TransformChain

# spelt as a registry gives it back: what it stores is Avro Java's text of a schema
SCHEMA = Schema.parse(
    '{"type":"record","name":"R","namespace":"t","fields":[{"name":"n","type":["null","long","double"]}]}'
)


class Nobody:
    def assigned(self, partitions): ...

    revoked = lost = assigned


@pytest.fixture
def broker(backend):
    broker = backend.open()
    yield broker
    broker.close()


def converters(store):
    key = StringConverter(StringConverterConfig.parse({}), is_key=True, schemas=store)
    value = AvroConverter(AvroConverterConfig.parse({}), is_key=False, schemas=store)
    return key, value


def test_headers_timestamp_key_partition_value_and_schema_survive_the_journey(broker, backend):
    topic = f"t-{backend.suffix}"
    broker.create_topic(topic, partitions=3)
    headers = (("a", b"1"), ("a", b"2"), ("empty", None), ("tieline.id", b"id"), ("tieline.digest", b"d"))
    sent = [
        SourceRecord(
            topic, {"n": 5}, "key", headers=headers, timestamp=1_700_000_000_123, value_schema=SCHEMA
        ),
        SourceRecord(topic, {"n": 5.0}, None, headers=headers, timestamp=1, partition=2, value_schema=SCHEMA),
        SourceRecord(topic, None, "gone", headers=headers, timestamp=0),
    ]
    store = TopicSchemaStore(broker)
    outbound = SourceConversion(TransformChain([]), *converters(store))
    # as the runtime does: a broker that has just started may ask for patience
    converted = TaskEnvironment("c", 0).retry(Stage.VALUE_CONVERTER, lambda: outbound.convert(sent))
    records = [record for record in converted.records if record is not None]
    producer = broker.producer("p", {})
    producer.send(Unit(records))
    (delivery,) = producer.poll(10)
    assert delivery.failures == {}
    producer.close(5)
    consumer = broker.consumer(f"g-{backend.suffix}", "c", {})
    consumer.subscribe([topic], None, Nobody())
    consumed: list[ConsumedRecord] = []
    while len(consumed) < 3:
        consumed += consumer.poll(10, 5)
    consumer.close(5)
    # another store, as in another worker: the schema is found by its id
    sink_records = (
        SinkConversion(broker, TransformChain([]), *converters(TopicSchemaStore(broker)))
        .convert(consumed)
        .records
    )
    by_key = {record.key: record for record in sink_records}
    for before in sent:
        after = by_key[before.key]
        assert (after.value, type(after.value and after.value["n"])) == (
            before.value,
            type(before.value and before.value["n"]),
        )
        assert (after.headers, after.timestamp) == (before.headers, before.timestamp)
        assert after.value_schema == before.value_schema
    assert by_key[None].partition == 2
