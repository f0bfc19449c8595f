"""What a producer promises, on both backends."""

import os
import time

import pytest

from tieline.api import DataError, RecordMetadata
from tieline.broker.records import ProducerRecord, Unit

# Kafka's own test vectors (UtilsTest.testMurmur2): key → murmur2 as a signed number.
MURMUR2 = {
    b"21": -973932308,
    b"foobar": -790332482,
    b"a-little-bit-long-string": -985981536,
    b"a-little-bit-longer-string": -1486304829,
    b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
    b"abc": 479470107,
}


def test_records_of_a_partition_keep_their_order_over_units(kit):
    topic, producer = kit.topic(), kit.producer()
    for first in range(0, 3000, 500):
        records = [ProducerRecord(topic, b"%d" % n, b"key") for n in range(first, first + 500)]
        producer.send(Unit(records))
    kit.ends(producer, 6)
    assert [int(record.value) for record in kit.read(topic)] == list(range(3000))


def test_a_key_has_the_partition_that_every_kafka_client_chooses(kit):
    topic = kit.topic(partitions=7)
    delivery = kit.produce(*(ProducerRecord(topic, b"v", key) for key in MURMUR2))
    expected = [(hashed & 0x7FFFFFFF) % 7 for hashed in MURMUR2.values()]
    assert [metadata.partition for metadata in delivery.metadata] == expected
    assert {record.key: record.partition for record in kit.read(topic)} == dict(
        zip(MURMUR2, expected, strict=True)
    )


def test_records_without_a_key_are_all_written(kit):
    topic = kit.topic(partitions=3)
    for first in range(0, 300, 100):
        kit.produce(*(ProducerRecord(topic, b"%d" % n) for n in range(first, first + 100)))
    assert sorted(int(record.value) for record in kit.read(topic)) == list(range(300))


def test_the_metadata_has_the_position_of_a_record(kit):
    topic = kit.topic(partitions=2)
    delivery = kit.produce(*(ProducerRecord(topic, b"%d" % n, partition=n % 2) for n in range(10)))
    assert delivery.metadata == [RecordMetadata(topic, n % 2, n // 2) for n in range(10)]
    values = {RecordMetadata(topic, r.partition, r.offset): r.value for r in kit.read(topic)}
    assert [values[metadata] for metadata in delivery.metadata] == [b"%d" % n for n in range(10)]


def test_a_record_for_a_missing_partition_fails_alone(kit):
    topic, producer = kit.topic(partitions=2), kit.producer()
    records = [ProducerRecord(topic, b"%d" % n, partition=p) for n, p in enumerate([0, 5, 1, -1])]
    producer.send(Unit(records))
    (delivery,) = kit.ends(producer, 1)
    assert set(delivery.failures) == {1, 3}
    assert all(isinstance(error, DataError) for error in delivery.failures.values())
    assert [metadata is None for metadata in delivery.metadata] == [False, True, False, True]
    assert {record.value for record in kit.read(topic)} == {b"0", b"2"}


def test_headers_keep_their_order_repeated_keys_and_null_values(kit):
    topic = kit.topic()
    headers = (("a", b"1"), ("b", None), ("a", b""), ("ü", bytes(range(256))), ("", b"no name"))
    kit.produce(ProducerRecord(topic, b"v", headers=headers), ProducerRecord(topic, b"v"))
    assert [record.headers for record in kit.read(topic)] == [headers, ()]


def test_timestamps_are_kept_and_missing_ones_are_set(kit):
    topic = kit.topic()
    before = time.time_ns() // 1_000_000
    kit.produce(
        ProducerRecord(topic, b"v", timestamp=1_700_000_000_123),
        ProducerRecord(topic, b"v"),
        ProducerRecord(topic, b"v", timestamp=1),
    )
    explicit, default, early = (record.timestamp for record in kit.read(topic))
    assert explicit == 1_700_000_000_123
    assert before <= default <= time.time_ns() // 1_000_000
    assert early == 1


def test_null_and_empty_keys_and_values_differ(kit):
    topic = kit.topic()
    pairs = [(None, None), (b"", b""), (b"k", None), (None, b"v"), (b"k", b"")]
    kit.produce(*(ProducerRecord(topic, value, key, partition=0) for key, value in pairs))
    assert [(record.key, record.value) for record in kit.read(topic)] == pairs


def test_a_record_that_is_too_large_fails_alone(kit):
    topic = kit.topic(max_message_bytes="20000")
    producer = kit.producer()
    records = [ProducerRecord(topic, b"%d" % n) for n in range(100)]
    records[40] = ProducerRecord(topic, os.urandom(30_000))
    producer.send(Unit(records))
    producer.send(Unit([ProducerRecord(topic, b"100")]))
    first, second = kit.ends(producer, 2)
    assert set(first.failures) == {40}
    assert isinstance(first.failures[40], DataError)
    assert not second.failures
    written = {record.offset: record.value for record in kit.read(topic)}
    assert [written[m.offset] for m in first.metadata if m] == [b"%d" % n for n in range(100) if n != 40]
    assert set(written.values()) == {b"%d" % n for n in range(101) if n != 40}


def test_a_large_record_travels_whole(kit):
    topic = kit.topic(max_message_bytes=str(9 << 20))
    value = os.urandom(8 << 20)
    kit.produce(
        ProducerRecord(topic, b"small"), ProducerRecord(topic, value), ProducerRecord(topic, b"small")
    )
    assert [record.value for record in kit.read(topic)] == [b"small", value, b"small"]
    consumer, _ = kit.member(kit.name(), [topic])
    assert [record.value for record in kit.take(consumer, 3)] == [b"small", value, b"small"]


@pytest.mark.parametrize("name", ["no/slash", "..", "x" * 250])
def test_a_record_for_an_illegal_topic_fails_alone(kit, name):
    topic, producer = kit.topic(), kit.producer()
    producer.send(Unit([ProducerRecord(name, b"0"), ProducerRecord(topic, b"1")]))
    (delivery,) = kit.ends(producer, 1)
    assert set(delivery.failures) == {0}
    assert isinstance(delivery.failures[0], DataError)
    assert [record.value for record in kit.read(topic)] == [b"1"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"headers": (("key", 7),)},
        {"headers": (("\udc80", b""),)},
        {"timestamp": -5},
    ],
)
def test_a_record_that_cannot_be_encoded_fails_alone(kit, wrong):
    topic, producer = kit.topic(), kit.producer()
    producer.send(Unit([ProducerRecord(topic, b"0")._replace(**wrong), ProducerRecord(topic, b"1")]))
    (delivery,) = kit.ends(producer, 1)
    assert set(delivery.failures) == {0}
    assert isinstance(delivery.failures[0], DataError)
    assert [record.value for record in kit.read(topic)] == [b"1"]


def test_deliveries_come_in_the_order_of_sending(kit):
    topic, producer = kit.topic(partitions=4), kit.producer()
    units = [
        Unit([ProducerRecord(topic, b"x" * size, partition=n % 4) for _ in range(20)])
        for n, size in enumerate([50_000, 1, 20_000, 10] * 5)
    ]
    for unit in units:
        producer.send(unit)
    assert [delivery.unit for delivery in kit.ends(producer, len(units))] == units


def test_bytes_in_flight_are_counted_until_their_end_is_reported(kit):
    topic, producer = kit.topic(), kit.producer()
    assert producer.in_flight_bytes == 0
    producer.send(Unit([ProducerRecord(topic, b"12345", b"key"), ProducerRecord(topic, None)]))
    producer.send(Unit([ProducerRecord(topic, b"12")]))
    assert producer.in_flight_bytes >= 10
    kit.ends(producer, 2)
    assert producer.in_flight_bytes == 0


def test_send_takes_more_than_the_clients_queue_and_all_of_it_arrives(kit):
    topic, producer = kit.topic(), kit.producer(queue_buffering_max_messages="50")
    for first in range(0, 2000, 200):
        producer.send(Unit([ProducerRecord(topic, b"%d" % n) for n in range(first, first + 200)]))
    deliveries = kit.ends(producer, 10)
    assert [m.offset for delivery in deliveries for m in delivery.metadata] == list(range(2000))
    assert [int(record.value) for record in kit.read(topic)] == list(range(2000))


def test_a_unit_without_records_ends_too(kit):
    producer = kit.producer()
    producer.send(Unit([]))
    (delivery,) = kit.ends(producer, 1)
    assert (list(delivery.metadata), delivery.failures) == ([], {})


def test_poll_without_anything_in_flight_returns_nothing(kit):
    assert kit.producer().poll(0) == []


def test_close_writes_as_much_as_its_time_permits(kit):
    topic = kit.topic()
    producer = kit.broker.producer("closing", {})
    producer.send(Unit([ProducerRecord(topic, b"%d" % n) for n in range(1000)]))
    producer.close(30)
    assert [int(record.value) for record in kit.read(topic)] == list(range(1000))


def test_close_without_time_returns_at_once(kit):
    topic = kit.topic()
    producer = kit.broker.producer("closing", {})
    producer.send(Unit([ProducerRecord(topic, b"x" * 1000) for n in range(5000)]))
    begin = time.monotonic()
    producer.close(0)
    assert time.monotonic() - begin < 5
    assert producer.in_flight_bytes == 0
    values = [record.value for record in kit.read(topic)]
    assert values == [b"x" * 1000] * len(values)
