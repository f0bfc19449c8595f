"""Seeing and changing the offsets of a connector that is stopped, on both backends."""

import datetime as dt
import json
import time

import pytest

from tieline.api import TopicPartition
from tieline.broker.records import ProducerRecord, Unit
from tieline.control.offsets import (
    ConnectorOffsets,
    OffsetsRefusedError,
    OffsetTarget,
    SinkOffset,
    known_connectors,
)

NOW = dt.datetime(2026, 1, 31, tzinfo=dt.timezone.utc)


def committed(kit, topic, offset, partition=0):
    """A sink that has run, and its name."""
    name = kit.name()
    kit.broker.offsets.commit(f"connect-{name}", {TopicPartition(topic, partition): offset}, 10)
    return name


def read_by(kit, name, topic):
    """The values of the next records that the sink is given, once it has reached the end."""
    consumer, _ = kit.member(f"connect-{name}", [topic])
    end = kit.broker.offsets.spans([topic], 10)[TopicPartition(topic, 0)].end
    numbers: list[int] = []

    def reached() -> bool:
        numbers.extend(int(record.value) for record in consumer.poll(100, 0.1))
        return bool(numbers) and numbers[-1] == end - 1

    kit.until(reached)
    consumer.close(10)
    return numbers


def test_the_position_of_a_sink_is_shown_for_every_partition_of_its_topics(kit):
    topic = kit.topic(partitions=2)
    kit.fill(topic, 5)
    kit.fill(topic, 3, partition=1)
    name = committed(kit, topic, 2)
    assert ConnectorOffsets(kit.broker.offsets, name).sink_offsets() == [
        SinkOffset(topic, 0, 2, 0, 5),
        SinkOffset(topic, 1, None, 0, 3),
    ]
    assert [row.lag for row in ConnectorOffsets(kit.broker.offsets, name).sink_offsets()] == [3, 3]
    assert known_connectors(kit.broker.offsets)[name] == "sink"


@pytest.mark.parametrize(
    ("target", "after"), [("earliest", 1), ("latest", 5), ("4", 4), ("1", 1), ("5", 5)], ids=str
)
def test_a_stopped_sink_continues_at_the_offset_that_was_set(kit, target, after):
    topic = kit.topic()
    kit.fill(topic, 5)
    kit.delete_before(topic, 0, 1)
    name = committed(kit, topic, 3)
    store = ConnectorOffsets(kit.broker.offsets, name)
    moves = store.plan_set(OffsetTarget.parse(target, NOW))
    assert [(move.before, move.after, move.span) for move in moves] == [(3, after, (1, 5))]
    assert store.sink_offsets()[0].committed == 3  # planning changes nothing
    store.set_sink(moves)
    assert store.sink_offsets()[0].committed == after
    kit.fill(topic, 1, start=5)
    assert read_by(kit, name, topic) == list(range(after, 6))


def test_a_time_means_the_first_record_of_that_time_or_the_end(kit):
    topic = kit.topic()
    now = int(time.time() * 1000)
    kit.produce(*(ProducerRecord(topic, b"%d" % n, timestamp=now + n * 1000) for n in range(3)))
    store = ConnectorOffsets(kit.broker.offsets, committed(kit, topic, 3))
    for timestamp, after in ((now - 5_000, 0), (now + 1, 1), (now + 2_000, 2), (now + 2_001, 3)):
        (move,) = store.plan_set(OffsetTarget("time", timestamp))
        assert move.after == after


def test_only_the_named_partitions_are_set(kit):
    topic = kit.topic(partitions=3)
    for partition in range(3):
        kit.fill(topic, 4, partition=partition)
    name = committed(kit, topic, 2, partition=1)
    store = ConnectorOffsets(kit.broker.offsets, name)
    store.set_sink(store.plan_set(OffsetTarget("latest"), [topic], [0, 2]))
    assert [row.committed for row in store.sink_offsets()] == [4, 2, 4]


def test_an_unknown_name_is_rejected_with_the_known_ones(kit):
    topic = kit.topic()
    kit.fill(topic, 5)
    store = ConnectorOffsets(kit.broker.offsets, committed(kit, topic, 3))
    with pytest.raises(OffsetsRefusedError, match="holds the offsets from 0 on, and its next record gets 5"):
        store.plan_set(OffsetTarget("offset", 6))
    with pytest.raises(OffsetsRefusedError, match="has no partition 7, only 0 to 0"):
        store.plan_set(OffsetTarget("earliest"), partitions=[7])
    with pytest.raises(OffsetsRefusedError, match="there is no topic nowhere"):
        store.plan_set(OffsetTarget("earliest"), ["nowhere"])
    with pytest.raises(OffsetsRefusedError, match="has no committed offset yet"):
        ConnectorOffsets(kit.broker.offsets, kit.name()).plan_set(OffsetTarget("earliest"))


def test_reset_removes_all_offsets_so_that_the_sink_starts_from_the_beginning(kit):
    topic = kit.topic()
    kit.fill(topic, 5)
    name = committed(kit, topic, 5)
    store = ConnectorOffsets(kit.broker.offsets, name)
    store.set_sink(store.plan_reset())
    assert store.sink_offsets() == []
    assert name not in known_connectors(kit.broker.offsets)
    assert read_by(kit, name, topic) == [0, 1, 2, 3, 4]


@pytest.mark.kafka
def test_a_running_sink_is_rejected_with_its_members(kafka_kit):
    kit = kafka_kit
    topic = kit.topic()
    kit.fill(topic, 5)
    name = committed(kit, topic, 3)
    consumer, listener = kit.member(f"connect-{name}", [topic])
    kit.until(lambda: bool(listener.owned), consumer)
    store = ConnectorOffsets(kit.broker.offsets, name)
    for moves in (store.plan_set(OffsetTarget("earliest")), store.plan_reset()):
        with pytest.raises(OffsetsRefusedError, match=r"is running, its group .* has the member\(s\) suite"):
            store.set_sink(moves)
    assert store.sink_offsets()[0].committed == 3


def test_a_sink_that_keeps_a_changelog_is_never_set_back(kit):
    topic, name = kit.topic(), kit.name()
    kit.fill(topic, 5)
    consumer, listener = kit.member(f"connect-{name}", [topic])
    kit.until(lambda: bool(listener.owned), consumer)
    writer = consumer.changelog(f"{name}-{topic}-changelog", TopicPartition(topic, 0), 20)
    writer.write({b"done": b"1"}, [], 3, 20)
    consumer.close(10)
    store = ConnectorOffsets(kit.broker.offsets, name)
    with pytest.raises(OffsetsRefusedError, match="only move forward"):  # also before the offset can be seen
        store.plan_set(OffsetTarget("earliest"), [topic])
    kit.until(lambda: bool(store.sink_offsets()))  # Kafka shows it when the transaction's end is written
    for plan in (lambda: store.plan_set(OffsetTarget("earliest")), store.plan_reset):
        with pytest.raises(
            OffsetsRefusedError,
            match=r"could act a second time .*\. Its offsets only move forward",
        ):
            plan()
    store.set_sink(store.plan_set(OffsetTarget("latest")))
    assert store.sink_offsets()[0].committed == 5


def test_the_saved_offsets_of_a_source_are_set_and_removed(kit):
    name = kit.name()
    producer = kit.producer()
    producer.send(Unit([], name, {'{"file":"a"}': '{"position":1}', '{"file":"b"}': '{"position":2}'}))
    kit.ends(producer, 1)
    producer.save_offsets(name, {'{"file":"a"}': '{"position":1}', '{"file":"b"}': '{"position":2}'}, 20)
    store = ConnectorOffsets(kit.broker.offsets, name)
    saved = kit.broker.source_offsets(name, 20)
    moves = [
        store.plan_source('{"file": "a"}', '{"position": 7}', saved),
        store.plan_source('{ "file" : "b" }', None, saved),
        store.plan_source('{"file": "ü"}', '{"position": 9}', saved),
    ]
    assert [json.loads(move.before or "null") for move in moves] == [{"position": 1}, {"position": 2}, None]
    store.set_source(moves)
    assert {json.loads(k)["file"]: json.loads(v) for k, v in kit.broker.source_offsets(name, 20).items()} == {
        "a": {"position": 7},
        "ü": {"position": 9},
    }
    assert known_connectors(kit.broker.offsets)[name] == "source"
    with pytest.raises(OffsetsRefusedError, match="flat JSON objects"):
        store.plan_source("[1]", None, saved)
