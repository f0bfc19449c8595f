"""The changelog of a consumed partition: durable, keyed, one with results and offset, one owner."""

from __future__ import annotations

import random
import threading
import time

import pytest

from tieline.api import DataError, FencedError, RetriableError, TopicPartition
from tieline.broker.records import Committed, ProducerRecord

SOON = 10.0


class Owner:
    """A member of the group that owns a partition, and its changelog."""

    def __init__(self, kit, topic, group=None, partition=0):
        self.kit, self.partition = kit, TopicPartition(topic, partition)
        self.group = group or kit.name()
        self.consumer, self.listener = kit.member(self.group, [topic])
        kit.until(lambda: self.partition in self.listener.owned, self.consumer)
        self.log = self.take()

    def take(self):
        """Repeat the call while the broker does not know its new topic yet, as the runtime does."""
        deadline = time.monotonic() + SOON
        log = None
        while log is None:
            try:
                log = self.consumer.changelog(f"{self.partition.topic}-changelog", self.partition, SOON)
            except RetriableError:
                if time.monotonic() > deadline:
                    raise
        self.kit.at_close.append(lambda: log.close(1.0))
        return log

    def write(self, entries, records=(), offset=None):
        self.log.write(entries, records, offset, SOON)

    def committed(self):
        stored = self.consumer.committed([self.partition], SOON).get(self.partition)
        return None if stored is None else stored.offset


def result(kit, topic, value):
    return ProducerRecord(topic, value, b"key")


def shown(kit, topic, count):
    """What a topic holds: Kafka shows a transaction a moment after its end."""
    deadline = time.monotonic() + SOON
    while len(records := kit.read(topic)) < count:
        assert time.monotonic() < deadline, records
    return records


def values(kit, topic, count):
    return [record.value for record in shown(kit, topic, count)]


def test_the_next_owner_finds_the_latest_value_of_each_key_and_no_deleted_one(kit):
    first = Owner(kit, kit.topic())
    assert first.log.entries == {}
    first.write({b"a": b"1", b"b": b"1", b"c": b"1"})
    first.write({b"a": b"2", b"b": None})
    first.write({b"b": b"3"})
    first.write({b"b": None, b"d": b"4"})
    assert first.log.entries == {}
    assert first.take().entries == {b"a": b"2", b"c": b"1", b"d": b"4"}


def test_records_and_the_offset_come_with_the_entries(kit):
    owner, results = Owner(kit, kit.topic()), kit.topic()
    kit.fill(owner.partition.topic, 3)
    owner.write({b"a": b"1"}, [result(kit, results, b"r1"), result(kit, results, b"r2")], 1)
    assert owner.committed() == 1
    owner.write({}, [result(kit, results, b"r3")])
    assert owner.committed() == 1
    owner.write({}, (), 3)
    assert owner.committed() == 3
    assert values(kit, results, 3) == [b"r1", b"r2", b"r3"]
    owner.log.close(SOON)
    owner.consumer.close(SOON)
    kit.fill(owner.partition.topic, 1, start=3)
    later, _ = kit.member(owner.group, [owner.partition.topic])
    assert [r.value for r in kit.take(later, 1)] == [b"3"]


def test_headers_timestamp_key_and_partition_of_a_record_survive(kit):
    owner, results = Owner(kit, kit.topic()), kit.topic(2)
    sent = ProducerRecord(results, b"v", b"k", (("h", b"1"), ("n", None)), 1_700_000_000_000, 1)
    owner.write({b"a": b"1"}, [sent, ProducerRecord(results, None, None, (), 5, 0)])
    by_partition = {r.partition: r for r in shown(kit, results, 2)}
    assert by_partition[1][3:] == (b"v", b"k", (("h", b"1"), ("n", None)), 1_700_000_000_000)
    assert by_partition[0][3:] == (None, None, (), 5)


def test_a_record_that_can_never_be_written_is_named_and_its_write_stores_nothing(kit):
    owner, results = Owner(kit, kit.topic()), kit.topic(max_message_bytes="2000")
    owner.write({b"a": b"1"}, (), 1)
    large = ProducerRecord(results, random.Random(1).randbytes(10_000))
    with pytest.raises(DataError) as caught:
        owner.write({b"a": b"2", b"b": None}, [result(kit, results, b"r"), large], 2)
    assert 3 in caught.value.failures
    with pytest.raises(DataError) as caught:
        owner.write({b"a": b"2"}, [ProducerRecord(results, b"x", partition=-7)], 2)
    assert set(caught.value.failures) == {1}
    assert (values(kit, results, 0), owner.committed()) == ([], 1)
    owner.write({b"c": b"3"}, [result(kit, results, b"r")])
    assert owner.take().entries == {b"a": b"1", b"c": b"3"}
    assert values(kit, results, 1) == [b"r"]


def test_a_new_owner_fences_the_former_one_whose_pending_writes_stay_invisible(kit):
    first, results = Owner(kit, kit.topic()), kit.topic()
    first.write({b"a": b"1"}, [result(kit, results, b"r1")], 1)
    second = first.take()
    for _ in range(2):
        with pytest.raises(FencedError):
            first.write({b"a": b"zombie"}, [result(kit, results, b"zombie")], 2)
    second.write({b"b": b"2"}, [result(kit, results, b"r2")], 2, SOON)
    with pytest.raises(FencedError):
        first.write({b"a": b"zombie"}, [result(kit, results, b"zombie")], 1)
    assert values(kit, results, 2) == [b"r1", b"r2"]
    assert first.committed() == 2
    assert first.take().entries == {b"a": b"1", b"b": b"2"}


def test_a_closed_changelog_writes_nothing(kit):
    owner = Owner(kit, kit.topic())
    owner.log.close(SOON)
    with pytest.raises(FencedError):
        owner.write({b"a": b"1"})
    assert owner.take().entries == {}


def test_partitions_have_changelogs_of_their_own_and_the_topic_has_as_many(kit):
    topic = kit.topic(3)
    owner = Owner(kit, topic, partition=2)
    owner.write({b"a": b"1"}, (), 7)
    other = owner.consumer.changelog(f"{topic}-changelog", TopicPartition(topic, 0), SOON)
    assert other.entries == {}
    other.write({b"a": b"2"}, (), 5, SOON)
    owner.write({b"b": b"1"}, (), 8)
    assert owner.consumer.committed([TopicPartition(topic, n) for n in range(3)], SOON) == {
        TopicPartition(topic, 0): Committed(5),
        TopicPartition(topic, 2): Committed(8),
    }
    other.close(SOON)
    assert owner.take().entries == {b"a": b"1", b"b": b"1"}


def test_a_thousand_keys_that_were_written_often_are_read_in_a_moment(kit):
    owner = Owner(kit, kit.topic())
    for round_ in range(3):
        for start in range(0, 1_000, 250):
            owner.write({b"%d" % n: b"%d" % (n + round_) for n in range(start, start + 250)})
    owner.write({b"7": None})
    began = time.monotonic()
    entries = owner.take().entries
    assert time.monotonic() - began < 5.0
    assert entries == {b"%d" % n: b"%d" % (n + 2) for n in range(1_000) if n != 7}


def test_writes_of_many_threads_take_turns_and_none_is_lost(kit):
    owner, results = Owner(kit, kit.topic()), kit.topic()

    def write(thread):
        for number in range(5):
            key = b"%d-%d" % (thread, number)
            owner.write({key: b"1", b"last-%d" % thread: key}, [result(kit, results, key)])

    threads = [threading.Thread(target=write, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    entries = owner.take().entries
    assert {key for key in entries if b"last" not in key} == {
        b"%d-%d" % (n, m) for n in range(4) for m in range(5)
    }
    assert {entries[b"last-%d" % n] for n in range(4)} == {b"%d-4" % n for n in range(4)}
    written = values(kit, results, 20)
    for writer in range(4):
        assert [v for v in written if v.startswith(b"%d-" % writer)] == [
            b"%d-%d" % (writer, m) for m in range(5)
        ]


def test_an_owner_that_takes_over_right_after_a_write_reads_it(kit):
    owner, results = Owner(kit, kit.topic()), kit.topic()
    for number in range(15):
        owner.write({b"n": b"%d" % number}, [result(kit, results, b"%d" % number)], number + 1)
        owner.log = owner.take()
        assert owner.log.entries == {b"n": b"%d" % number}
        assert owner.committed() == number + 1
    assert values(kit, results, 15) == [b"%d" % n for n in range(15)]


def test_a_recreated_topic_keeps_the_changelogs_entries_and_starts_new_offsets(kit):
    topic = kit.topic()
    owner = Owner(kit, topic)
    kit.fill(topic, 5)
    kit.take(owner.consumer, 5)
    owner.write({b"done": b"1"}, offset=5)
    assert kit.delete_topic(topic)
    deadline = time.monotonic() + 30
    while not kit.broker.create_topic(topic, partitions=1):
        assert time.monotonic() < deadline
    kit.fill(topic, 8, start=100)
    assert [record.value for record in kit.take(owner.consumer, 8)] == [b"%d" % n for n in range(100, 108)]
    owner.log.close(SOON)
    owner.log = owner.take()
    assert owner.log.entries == {b"done": b"1"}
    owner.write({b"done": b"2"}, offset=3)
    kit.until(lambda: owner.committed() == 3, owner.consumer)
    owner.log.close(SOON)
    owner.consumer.close(SOON)
    second, _ = kit.member(owner.group, [topic])
    assert [record.value for record in kit.take(second, 5)] == [b"%d" % n for n in range(103, 108)]
