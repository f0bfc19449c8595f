"""Commits that carry records and notes, on both backends."""

import random
import time

import pytest

from tieline.api import DataError, FatalError, RetriableError, TopicPartition
from tieline.broker.notes import MAX_NOTE_BYTES
from tieline.broker.records import Committed, ProducerRecord
from tieline.control.offsets import ConnectorOffsets

NOTE = '{"v":1,"delivered":3,"é":"ü"}'
TOO_LARGE = random.Random(1).randbytes(2_000_000)  # which no compression makes smaller than the topic's limit


def letters(topic, *values):
    return [ProducerRecord(topic, value, b"key", (("h", b"1"),), 1_000) for value in values]


def values(kit, topic):
    return [record.value for record in kit.read(topic)]


def commit(kit, consumer, how, offsets, records=(), notes=None):
    """Commit with one of the two calls, and return when it has ended."""
    if how == "commit":
        consumer.commit(offsets, 10, records, notes)
        return
    answer = consumer.commit_async(offsets, records, notes)
    kit.until(answer.done, consumer)
    answer.result(0)


both_calls = pytest.mark.parametrize("how", ["commit", "commit_async"])


@both_calls
def test_records_are_written_in_their_order_with_the_offsets(kit, how):
    topic, dead = kit.topic(), kit.topic()
    partition = TopicPartition(topic, 0)
    consumer, _ = kit.having_read(topic, 5)
    commit(kit, consumer, how, {partition: 2}, letters(dead, b"a", b"b", b"c"))
    assert consumer.committed([partition], 10) == {partition: Committed(2)}
    commit(kit, consumer, how, {partition: 5}, letters(dead, b"d"))
    assert consumer.committed([partition], 10) == {partition: Committed(5)}
    assert values(kit, dead) == [b"a", b"b", b"c", b"d"]
    first = kit.read(dead)[0]
    assert (first.key, first.headers, first.timestamp) == (b"key", (("h", b"1"),), 1_000)


@both_calls
def test_no_offset_is_committed_if_a_record_cannot_be_written(kit, how):
    topic, dead = kit.topic(), kit.topic(max_message_bytes="1000000")
    partition = TopicPartition(topic, 0)
    consumer, _ = kit.having_read(topic, 5)
    commit(kit, consumer, how, {partition: 1}, (), {partition: NOTE})
    with pytest.raises(DataError) as raised:
        commit(kit, consumer, how, {partition: 4}, letters(dead, b"a", TOO_LARGE, b"c"), {partition: "new"})
    assert set(raised.value.failures) == {1}
    assert consumer.committed([partition], 10) == {partition: Committed(1, NOTE)}
    commit(kit, consumer, how, {partition: 4}, letters(dead, b"d"))
    assert consumer.committed([partition], 10) == {partition: Committed(4)}
    assert values(kit, dead)[-1] == b"d"


@both_calls
def test_a_note_returns_with_its_offset_to_the_next_member(kit, how):
    topic, group = kit.topic(partitions=2), kit.name()
    zero, one = TopicPartition(topic, 0), TopicPartition(topic, 1)
    first, _ = kit.having_read(topic, 5, group)
    longest = "ü" * (MAX_NOTE_BYTES // 2)
    commit(kit, first, how, {zero: 3, one: 0}, (), {zero: NOTE, one: longest})
    expected = {zero: Committed(3, NOTE), one: Committed(0, longest)}
    assert first.committed([zero, one], 10) == expected
    first.close(10)
    second, listener = kit.member(group, [topic])
    kit.until(lambda: listener.owned == {zero, one}, second)
    assert second.committed([zero, one], 10) == expected


@both_calls
def test_a_commit_without_a_note_removes_it_also_at_the_same_offset(kit, how):
    topic = kit.topic(partitions=2)
    zero, one = TopicPartition(topic, 0), TopicPartition(topic, 1)
    consumer, _ = kit.having_read(topic, 5)
    commit(kit, consumer, how, {zero: 3, one: 0}, (), {zero: NOTE, one: NOTE})
    commit(kit, consumer, how, {zero: 3, one: 0}, (), {one: "other"})
    assert consumer.committed([zero, one], 10) == {zero: Committed(3), one: Committed(0, "other")}


@pytest.mark.parametrize("note", ["x" * (MAX_NOTE_BYTES + 1), "ü" * (MAX_NOTE_BYTES // 2 + 1), "a\0b"])
@both_calls
def test_a_note_that_kafka_would_not_store_is_refused_and_nothing_is_written(kit, how, note):
    topic, dead = kit.topic(), kit.topic()
    partition = TopicPartition(topic, 0)
    consumer, _ = kit.having_read(topic, 5)
    with pytest.raises(FatalError, match=f"{topic}-0"):
        commit(kit, consumer, how, {partition: 3}, letters(dead, b"a"), {partition: note})
    assert consumer.committed([partition], 10) == {}
    assert values(kit, dead) == []


@pytest.mark.parametrize("note", ["{", "consumer-1", "{}" * 2000, " ", '{"v":99}'])
def test_a_note_of_another_program_is_returned_as_it_is(kit, note):
    topic = kit.topic()
    partition = TopicPartition(topic, 0)
    consumer, _ = kit.having_read(topic, 5)
    consumer.commit({partition: 2}, 10, (), {partition: note})
    assert consumer.committed([partition], 10) == {partition: Committed(2, note)}


def test_an_operator_who_sets_an_offset_drops_the_note(kit):
    topic, name = kit.topic(partitions=2), kit.name()
    zero, one = TopicPartition(topic, 0), TopicPartition(topic, 1)
    first, _ = kit.having_read(topic, 5, f"connect-{name}")
    first.commit({zero: 3, one: 0}, 10, (), {zero: NOTE, one: NOTE})
    first.close(10)
    kit.broker.offsets.commit(f"connect-{name}", {zero: 3}, 10)
    second, listener = kit.member(f"connect-{name}", [topic])
    kit.until(lambda: listener.owned == {zero, one}, second)
    assert second.committed([zero, one], 10) == {zero: Committed(3), one: Committed(0, NOTE)}
    second.close(10)
    store = ConnectorOffsets(kit.broker.offsets, name)
    store.set_sink(store.plan_reset())
    third, _ = kit.member(f"connect-{name}", [topic])
    kit.take(third, 5)
    assert third.committed([zero, one], 10) == {}


def test_records_of_a_partition_that_is_not_owned_are_not_written(kit):
    topic, other, dead = kit.topic(), kit.topic(), kit.topic()
    consumer, _ = kit.having_read(topic, 5)
    with pytest.raises(RetriableError):
        consumer.commit({TopicPartition(other, 0): 1}, 10, letters(dead, b"a"))
    assert values(kit, dead) == []


def test_records_are_written_while_a_partition_is_revoked(kit):
    topic, dead, group = kit.topic(), kit.topic(), kit.name()
    partition = TopicPartition(topic, 0)
    first, listener = kit.having_read(topic, 5, group)
    listener.on_revoked = lambda partitions: first.commit(
        {partition: 4}, 10, letters(dead, b"a"), {partition: NOTE}
    )
    first.close(10)
    second, _ = kit.member(group, [topic])
    kit.take(second, 1)
    assert second.committed([partition], 10) == {partition: Committed(4, NOTE)}
    assert values(kit, dead) == [b"a"]


def test_a_later_commit_replaces_one_that_waits_for_its_records(kit):
    topic, dead = kit.topic(), kit.topic()
    partition = TopicPartition(topic, 0)
    consumer, _ = kit.having_read(topic, 5)
    earlier = consumer.commit_async({partition: 2}, letters(dead, b"a"), {partition: "earlier"})
    consumer.commit({partition: 4}, 10, letters(dead, b"b"), {partition: "later"})
    assert earlier.done()
    end = time.monotonic() + 1
    kit.until(lambda: time.monotonic() > end, consumer)
    assert consumer.committed([partition], 10) == {partition: Committed(4, "later")}
    assert values(kit, dead)[-1] == b"b"
