"""What one consumer promises, on both backends."""

import time

import pytest

from tieline.api import FatalError, RetriableError, TopicPartition
from tieline.broker.records import Committed, ProducerRecord, Skipped


def _numbers(records):
    return [int(record.value) for record in records]


def test_a_new_group_starts_at_the_beginning(kit):
    topic = kit.topic()
    kit.fill(topic, 10)
    consumer, listener = kit.member(kit.name(), [topic])
    assert _numbers(kit.take(consumer, 10)) == list(range(10))
    assert listener.events == [("assigned", {TopicPartition(topic, 0)})]


def test_a_group_continues_where_it_committed(kit):
    topic, group = kit.topic(), kit.name()
    partition = TopicPartition(topic, 0)
    kit.fill(topic, 20)
    first, _ = kit.member(group, [topic])
    records = kit.take(first, 12)
    first.commit({partition: records[6].offset + 1}, 10)
    first.close(10)
    second, _ = kit.member(group, [topic])
    assert _numbers(kit.take(second, 13)) == list(range(7, 20))
    assert second.committed([partition], 10) == {partition: Committed(7)}


def test_an_asynchronous_commit_ends_inside_poll(kit):
    topic, group = kit.topic(), kit.name()
    partition = TopicPartition(topic, 0)
    kit.fill(topic, 20)
    first, _ = kit.member(group, [topic])
    records = kit.take(first, 12)
    answer = first.commit_async({partition: records[6].offset + 1})
    kit.until(answer.done, first)
    assert answer.exception() is None
    assert first.committed([partition], 10) == {partition: Committed(records[6].offset + 1)}


def test_an_asynchronous_commit_of_a_partition_that_is_not_owned_is_refused(kit):
    mine, other = kit.topic(), kit.topic()
    kit.fill(mine, 3)
    consumer, _ = kit.member(kit.name(), [mine])
    kit.take(consumer, 3)
    partitions = [TopicPartition(mine, 0), TopicPartition(other, 0)]
    answer = consumer.commit_async(dict.fromkeys(partitions, 1))
    kit.until(answer.done, consumer)
    assert isinstance(answer.exception(), RetriableError)
    assert consumer.committed(partitions, 10) == {}


def test_groups_do_not_share_their_offsets(kit):
    topic = kit.topic()
    kit.fill(topic, 5)
    for group in (kit.name(), kit.name()):
        consumer, _ = kit.member(group, [topic])
        assert _numbers(kit.take(consumer, 5)) == list(range(5))
        consumer.commit({TopicPartition(topic, 0): 5}, 10)


def test_a_partition_without_a_commit_is_left_out_of_the_committed_offsets(kit):
    topic = kit.topic(partitions=2)
    consumer, _ = kit.having_read(topic, 3)
    zero, one = TopicPartition(topic, 0), TopicPartition(topic, 1)
    consumer.commit({zero: 2}, 10)
    assert consumer.committed([zero, one], 10) == {zero: Committed(2)}
    assert consumer.committed([], 10) == {}


def test_a_commit_of_a_partition_that_is_not_owned_is_refused_and_stores_nothing(kit):
    mine, other = kit.topic(), kit.topic()
    kit.fill(mine, 3)
    consumer, _ = kit.member(kit.name(), [mine])
    kit.take(consumer, 3)
    partitions = [TopicPartition(mine, 0), TopicPartition(other, 0)]
    with pytest.raises(RetriableError):
        consumer.commit(dict.fromkeys(partitions, 1), 10)
    assert consumer.committed(partitions, 10) == {}


def test_poll_returns_no_more_than_requested(kit):
    topic = kit.topic()
    kit.fill(topic, 50)
    consumer, _ = kit.member(kit.name(), [topic])
    sizes, count = [], 0
    while count < 50:
        records = consumer.poll(7, 1)
        sizes.append(len(records))
        count += len(records)
    assert count == 50
    assert max(sizes) <= 7


def test_poll_returns_with_the_first_record_and_does_not_wait_for_more(kit):
    topic = kit.topic()
    consumer, listener = kit.member(kit.name(), [topic])
    kit.until(lambda: bool(listener.owned), consumer)
    kit.fill(topic, 1)
    begin = time.monotonic()
    assert len(consumer.poll(500, 30)) == 1
    assert time.monotonic() - begin < 10


def test_poll_waits_no_longer_than_requested(kit):
    topic = kit.topic()
    consumer, listener = kit.member(kit.name(), [topic])
    kit.until(lambda: bool(listener.owned), consumer)
    begin = time.monotonic()
    assert consumer.poll(10, 0.2) == []
    assert 0.15 < time.monotonic() - begin < 5


def test_records_deleted_at_the_beginning_are_skipped(kit):
    topic, group = kit.topic(), kit.name()
    kit.fill(topic, 10)
    kit.delete_before(topic, 0, 6)
    consumer, _ = kit.member(group, [topic])
    records = kit.take(consumer, 4)
    assert [(record.offset, int(record.value)) for record in records] == [(6, 6), (7, 7), (8, 8), (9, 9)]


def test_a_committed_offset_that_was_deleted_leads_to_the_next_record(kit):
    topic, group = kit.topic(), kit.name()
    kit.fill(topic, 10)
    first, _ = kit.member(group, [topic])
    kit.take(first, 2)
    first.commit({TopicPartition(topic, 0): 2}, 10)
    first.close(10)
    kit.delete_before(topic, 0, 6)
    second, _ = kit.member(group, [topic])
    assert [record.offset for record in kit.take(second, 4)] == [6, 7, 8, 9]


def test_offsets_continue_after_everything_was_deleted(kit):
    topic = kit.topic()
    kit.fill(topic, 5)
    kit.delete_before(topic, 0, 5)
    assert kit.read(topic) == []
    kit.fill(topic, 1, start=5)
    assert [(record.offset, record.value) for record in kit.read(topic)] == [(5, b"5")]


def test_holes_between_records_break_neither_order_nor_commit(kit):
    topic, group = kit.topic(), kit.name()
    partition = TopicPartition(topic, 0)
    for n in range(5):  # on Kafka each leaves a marker of its transaction behind
        with kit.broker.exclusive(topic) as log:
            log.append([ProducerRecord(topic, b"%d" % n)])
    first, _ = kit.member(group, [topic])
    records = kit.take(first, 3)
    assert _numbers(records) == [0, 1, 2]
    first.commit({partition: records[-1].offset + 1}, 10)
    first.close(10)
    second, _ = kit.member(group, [topic])
    rest = kit.take(second, 2)
    assert _numbers(rest) == [3, 4]
    second.commit({partition: rest[-1].offset + 1}, 10)
    assert kit.until(lambda: second.lag() == {partition: 0}, second) == []


def test_a_paused_partition_delivers_nothing_until_it_is_resumed(kit):
    topic = kit.topic(partitions=2)
    zero, one = TopicPartition(topic, 0), TopicPartition(topic, 1)
    kit.fill(topic, 100, partition=0)
    kit.fill(topic, 100, start=1000, partition=1)
    consumer, listener = kit.member(kit.name(), [topic])
    before = kit.take(consumer, 20, at_once=5)
    consumer.pause([zero])
    seen_zero = [int(record.value) for record in before if record.partition == 0]
    of_one = [int(record.value) for record in before if record.partition == 1]
    while len(of_one) < 100:
        records = consumer.poll(30, 0.5)
        assert {record.partition for record in records} <= {1}
        of_one += _numbers(records)
    assert of_one == list(range(1000, 1100))
    assert consumer.poll(30, 0.3) == []
    consumer.resume([zero, one])
    rest = kit.take(consumer, 100 - len(seen_zero))
    assert seen_zero + _numbers(rest) == list(range(100))
    assert listener.owned == {zero, one}


def test_seek_goes_back_and_forward(kit):
    topic = kit.topic()
    partition = TopicPartition(topic, 0)
    kit.fill(topic, 30)
    consumer, _ = kit.member(kit.name(), [topic])
    assert _numbers(kit.take(consumer, 10)) == list(range(10))
    consumer.seek(partition, 3)
    assert _numbers(kit.take(consumer, 5)) == [3, 4, 5, 6, 7]
    consumer.seek(partition, 25)
    assert _numbers(kit.take(consumer, 5)) == [25, 26, 27, 28, 29]


def test_seek_to_a_deleted_record_continues_at_the_next_one(kit):
    topic = kit.topic()
    consumer, _ = kit.having_read(topic, 10)
    kit.delete_before(topic, 0, 6)
    consumer.seek(TopicPartition(topic, 0), 2)
    assert [record.offset for record in kit.take(consumer, 4)] == [6, 7, 8, 9]


def test_seek_of_a_paused_partition_leaves_it_paused(kit):
    topic = kit.topic()
    partition = TopicPartition(topic, 0)
    consumer, _ = kit.having_read(topic, 10)
    consumer.pause([partition])
    consumer.seek(partition, 4)
    assert consumer.poll(10, 0.5) == []
    consumer.resume([partition])
    assert _numbers(kit.take(consumer, 6)) == [4, 5, 6, 7, 8, 9]


def test_reading_to_the_end_repeatedly_causes_no_rebalance(kit):
    topic, other = kit.topic(), kit.topic()
    consumer, listener = kit.member(kit.name(), [topic])
    numbers: list[int] = []
    for start in range(0, 50, 10):
        kit.fill(topic, 10, start=start)
        kit.fill(other, 1)  # meanwhile a client that fetches ahead has met the end behind the records
        while len(numbers) < start + 10:
            numbers += _numbers(consumer.poll(100, 5))
    assert numbers == list(range(50))
    assert listener.events == [("assigned", frozenset({TopicPartition(topic, 0)}))]


def test_a_recreated_topic_is_reported_as_lost_and_assigned_and_read_from_its_beginning(kit):
    topic = kit.topic()
    partition = TopicPartition(topic, 0)
    consumer, listener = kit.having_read(topic, 10)
    kit.recreate(topic)
    kit.fill(topic, 5, start=100)
    assert _numbers(kit.take(consumer, 5)) == [100, 101, 102, 103, 104]
    assert [what for what, partitions in listener.events if partition in partitions][-1] == "assigned"
    assert len(listener.events) >= 3
    assert listener.owned == {partition}


def test_pause_and_seek_of_a_partition_that_is_not_owned_do_nothing(kit):
    topic, other = kit.topic(), kit.topic()
    kit.fill(topic, 3)
    consumer, _ = kit.member(kit.name(), [topic])
    kit.take(consumer, 1, at_once=1)
    consumer.pause([TopicPartition(other, 0)])
    consumer.resume([TopicPartition(other, 0)])
    consumer.seek(TopicPartition(other, 0), 7)
    assert _numbers(kit.take(consumer, 2)) == [1, 2]


def test_a_pattern_matches_whole_names_and_topics_created_later(kit):
    stem = kit.name()
    for name in (f"{stem}.a", f"{stem}.b.c", f"x{stem}.a"):
        assert kit.broker.create_topic(name, partitions=1)
        kit.fill(name, 2)
    consumer, listener = kit.member(kit.name(), pattern=rf"{stem}\.\w")
    assert {record.topic for record in kit.take(consumer, 2)} == {f"{stem}.a"}
    assert kit.broker.create_topic(f"{stem}.z", partitions=2)
    kit.fill(f"{stem}.z", 3, partition=1)
    assert {record.topic for record in kit.take(consumer, 3)} == {f"{stem}.z"}
    assert listener.owned == {
        TopicPartition(f"{stem}.a", 0),
        TopicPartition(f"{stem}.z", 0),
        TopicPartition(f"{stem}.z", 1),
    }


def test_a_subscribed_topic_may_be_created_later(kit):
    topic, later = kit.topic(), kit.name()
    kit.fill(topic, 1)
    consumer, _ = kit.member(kit.name(), [topic, later])
    kit.take(consumer, 1)
    assert kit.broker.create_topic(later, partitions=1)
    kit.fill(later, 2)
    assert {record.topic for record in kit.take(consumer, 2)} == {later}


def test_an_invalid_pattern_is_fatal(kit):
    consumer = kit.broker.consumer(kit.name(), "suite", {})
    with pytest.raises(FatalError, match="not a regular expression"):
        consumer.subscribe([], "(", None)
    consumer.close(5)


def test_lag_counts_records_that_poll_has_not_returned_yet(kit):
    topic = kit.topic()
    kit.fill(topic, 10)
    consumer, _ = kit.member(kit.name(), [topic])
    kit.take(consumer, 4, at_once=4)
    assert consumer.lag() == {TopicPartition(topic, 0): 6}
    kit.take(consumer, 6)
    assert consumer.lag() == {TopicPartition(topic, 0): 0}


def test_lag_is_unknown_if_nothing_of_a_partition_was_read(kit):
    topic = kit.topic(partitions=2)
    zero, one = TopicPartition(topic, 0), TopicPartition(topic, 1)
    kit.fill(topic, 10, partition=1)
    consumer, listener = kit.member(kit.name(), [topic])
    listener.on_assigned = consumer.pause
    kit.until(lambda: bool(listener.owned), consumer)
    consumer.resume([zero])
    kit.until(lambda: consumer.lag()[zero] == 0, consumer)
    assert consumer.lag()[one] in (None, 10)  # the local log knows it


def test_lag_is_unknown_before_partitions_are_assigned(kit):
    consumer, listener = kit.member(kit.name(), [kit.topic()])
    with pytest.raises(RetriableError, match="not assigned yet"):
        consumer.lag()
    kit.until(lambda: bool(listener.owned), consumer)
    kit.until(lambda: list(consumer.lag().values()) == [0], consumer)


def test_lag_of_a_member_without_partitions_is_empty(kit):
    topic, group = kit.topic(), kit.name()
    first, first_listener = kit.member(group, [topic])
    kit.until(lambda: bool(first_listener.owned), first)
    second, _ = kit.member(group, [topic])

    def lag():
        try:
            return second.lag()
        except RetriableError:
            return None

    kit.until(lambda: lag() == {}, first, second)


def test_lag_of_a_paused_partition_grows_with_new_records(kit):
    topic = kit.topic()
    partition = TopicPartition(topic, 0)
    consumer, _ = kit.having_read(topic, 10)
    consumer.pause([partition])
    kit.fill(topic, 500, start=10)
    assert kit.until(lambda: consumer.lag() == {partition: 500}, consumer) == []


def test_all_records_of_a_recreated_topic_arrive_even_if_it_is_longer_than_the_old_one(kit):
    topic = kit.topic()
    partition = TopicPartition(topic, 0)
    consumer, listener = kit.having_read(topic, 3)
    first_id = consumer.topic_id(topic)
    kit.recreate(topic)
    kit.fill(topic, 10, start=100)
    assert _numbers(kit.take(consumer, 10)) == list(range(100, 110))
    assert consumer.topic_id(topic) != first_id
    assert [what for what, partitions in listener.events if partition in partitions][-2:] == [
        "lost",
        "assigned",
    ]
    assert {skipped.reason for skipped in consumer.skipped()} <= {"recreated"}


def test_a_recreated_topic_with_as_many_records_as_were_read_is_read_from_its_beginning(kit):
    topic = kit.topic()
    consumer, _ = kit.having_read(topic, 5)
    kit.recreate(topic)
    kit.fill(topic, 5, start=100)
    assert _numbers(kit.take(consumer, 5)) == list(range(100, 105))


def test_nothing_is_committed_for_a_topic_that_was_recreated(kit):
    topic, group = kit.topic(), kit.name()
    partition = TopicPartition(topic, 0)
    consumer, _ = kit.having_read(topic, 5, group)
    consumer.pause([partition])
    kit.recreate(topic)
    kit.fill(topic, 9, start=100)
    time.sleep(0.5)  # an id that was confirmed a moment ago is believed
    answer = consumer.commit_async({partition: 5})
    kit.until(answer.done, consumer)
    consumer.close(10)
    second, _ = kit.member(group, [topic])
    assert _numbers(kit.take(second, 9)) == list(range(100, 109))


def test_records_that_expired_unread_are_reported_once_with_their_range(kit):
    topic, group = kit.topic(), kit.name()
    partition = TopicPartition(topic, 0)
    kit.fill(topic, 10)
    consumer, _ = kit.member(group, [topic])
    kit.take(consumer, 2)
    consumer.commit({partition: 2}, 10)
    consumer.close(10)
    kit.delete_before(topic, 0, 6)
    second, _ = kit.member(group, [topic])
    assert [record.offset for record in kit.take(second, 4)] == [6, 7, 8, 9]
    assert second.skipped() == [Skipped(partition, 2, 6, "expired")]
    assert second.skipped() == []


def test_records_that_expired_before_the_group_began_do_not_count_as_skipped(kit):
    topic = kit.topic()
    kit.fill(topic, 10)
    kit.delete_before(topic, 0, 6)
    consumer, _ = kit.member(kit.name(), [topic])
    assert [record.offset for record in kit.take(consumer, 4)] == [6, 7, 8, 9]
    assert consumer.skipped() == []


def test_holes_and_markers_are_not_skipped_records(kit):
    topic = kit.topic()
    for n in range(5):
        with kit.broker.exclusive(topic) as log:
            log.append([ProducerRecord(topic, b"%d" % n)])
    consumer, _ = kit.member(kit.name(), [topic])
    assert _numbers(kit.take(consumer, 5)) == [0, 1, 2, 3, 4]
    assert consumer.skipped() == []


def test_a_pattern_that_matches_all_topics_excludes_tielines_own(kit):
    topic = kit.topic()
    kit.broker.create_topic("_schemas", partitions=1)
    kit.producer().save_offsets(kit.name(), {'{"a":1}': "{}"}, 20)
    # Other tests read schemas from this broker: the record is one that every registry ignores.
    kit.produce(ProducerRecord("_schemas", b"{}", b'{"keytype":"NOOP","magic":0}'))
    kit.fill(topic, 1)
    consumer, listener = kit.member(kit.name(), pattern=rf"_schemas|suite-offsets|{topic}|.*offsets")
    kit.take(consumer, 1)
    assert listener.owned == {TopicPartition(topic, 0)}
