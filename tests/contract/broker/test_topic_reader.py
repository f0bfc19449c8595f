"""Reading a topic in no group, on both backends."""

import threading
import time

import pytest

from tieline.broker.records import ConsumedRecord, ProducerRecord

PATIENCE = 60.0


@pytest.fixture
def reading(kit):
    """Readers that are closed at the end."""
    readers = []

    def open_(topic, **options):
        readers.append(kit.broker.reader(topic, **options))
        return readers[-1]

    yield open_
    for reader in readers:
        reader.close(10)


def take(reader, count):
    """The next ``count`` values, and no more."""
    records: list[ConsumedRecord] = []
    deadline = time.monotonic() + PATIENCE
    while len(records) < count:
        assert time.monotonic() < deadline, f"{len(records)} of {count} records came"
        records += reader.poll(100, 0.5)
    return [record.value for record in records]


def drain(reader):
    """The values up to the end as it was when the reader was made."""
    records: list[ConsumedRecord] = []
    deadline = time.monotonic() + PATIENCE
    while not reader.at_end:
        assert time.monotonic() < deadline
        records += reader.poll(100, 0.5)
    return [record.value for record in records]


def stamped(topic, *times):
    return [ProducerRecord(topic, b"%d" % time, timestamp=time, partition=0) for time in times]


def test_a_reader_begins_at_the_end_and_sees_everything_that_is_written_after_it_was_created(kit, reading):
    topic = kit.topic(partitions=2)
    kit.fill(topic, 3)
    reader = reading(topic)
    assert reader.at_end
    kit.fill(topic, 2, start=10)
    kit.fill(topic, 1, start=20, partition=1)
    assert sorted(take(reader, 3)) == [b"10", b"11", b"20"]
    assert reader.poll(10, 0.1) == []


def test_a_reader_from_the_beginning_is_at_the_end_once_it_has_read_every_earlier_record(kit, reading):
    topic = kit.topic(partitions=3)
    kit.fill(topic, 5)
    kit.fill(topic, 2, start=10, partition=2)
    reader = reading(topic, since=0)
    assert not reader.at_end
    assert sorted(drain(reader)) == sorted([b"0", b"1", b"2", b"3", b"4", b"10", b"11"])
    kit.fill(topic, 1, start=20)
    assert reader.at_end
    assert take(reader, 1) == [b"20"]


def test_a_reader_of_an_empty_topic_is_at_its_end_and_continues(kit, reading):
    reader = reading(topic := kit.topic(), since=0)
    assert reader.at_end
    kit.fill(topic, 1)
    assert take(reader, 1) == [b"0"]


def test_since_begins_at_the_first_record_of_that_time_or_later_even_if_timestamps_decrease(kit, reading):
    topic, day = kit.topic(), 1_700_000_000_000
    kit.produce(*stamped(topic, day, day + 10, day + 5, day + 20, day + 1))
    assert drain(reading(topic, since=day + 6)) == [b"%d" % (day + n) for n in (10, 5, 20, 1)]
    assert drain(reading(topic, since=day + 20)) == [b"%d" % (day + n) for n in (20, 1)]
    assert len(drain(reading(topic, since=day - 1))) == 5


def test_since_a_time_after_the_last_record_begins_at_the_end(kit, reading):
    topic, day = kit.topic(), 1_700_000_000_000
    kit.produce(*stamped(topic, day))
    reader = reading(topic, since=day + 1)
    assert drain(reader) == []
    kit.produce(*stamped(topic, day + 2))
    assert take(reader, 1) == [b"%d" % (day + 2)]


def test_only_the_requested_partitions_are_read(kit, reading):
    topic = kit.topic(partitions=3)
    for partition in range(3):
        kit.fill(topic, 2, start=10 * partition, partition=partition)
    reader = reading(topic, since=0, partitions=[1])
    assert drain(reader) == [b"10", b"11"]
    kit.fill(topic, 1, start=5)
    kit.fill(topic, 1, start=15, partition=1)
    assert take(reader, 1) == [b"15"]


def test_deleted_records_are_skipped_and_the_end_after_transaction_markers_is_reached(kit, reading):
    topic = kit.topic()
    for n in range(4):
        with kit.broker.exclusive(topic) as log:
            log.append([ProducerRecord(topic, b"%d" % n)])
    kit.delete_before(topic, 0, 1)
    assert drain(reading(topic, since=0)) == [b"1", b"2", b"3"]


def test_a_topic_that_comes_later_is_read_from_its_beginning(kit, reading):
    topic = kit.name()
    reader = reading(topic)
    assert reader.at_end
    assert reader.poll(10, 0.1) == []
    kit.broker.create_topic(topic, partitions=2)
    kit.fill(topic, 2, partition=1)
    assert take(reader, 2) == [b"0", b"1"]


def test_a_reader_that_waits_is_woken_by_a_record(kit, reading):
    topic = kit.topic()
    reader = reading(topic)
    reader.poll(1, 0.1)
    began = threading.Event()
    arrivals: list[tuple[ConsumedRecord, float]] = []

    def wait():
        began.set()
        deadline = time.monotonic() + PATIENCE
        while not arrivals and time.monotonic() < deadline:
            arrivals.extend((record, time.time()) for record in reader.poll(10, PATIENCE))

    thread = threading.Thread(target=wait)
    thread.start()
    began.wait()
    kit.produce(ProducerRecord(topic, b"x"))
    thread.join()
    ((record, arrived),) = arrivals
    assert arrived - record.timestamp / 1000 < 2.0  # not at the end of its time-out


def test_a_reader_neither_joins_nor_affects_a_group(kit, reading):
    topic, group = kit.topic(), kit.name()
    kit.fill(topic, 4)
    consumer, _ = kit.member(group, [topic])
    reader = reading(topic, since=0)
    assert len(drain(reader)) == 4
    assert len(kit.take(consumer, 4)) == 4
    assert [name for name in kit.groups() if topic in name] == []


def test_no_more_records_than_requested_are_returned_at_once(kit, reading):
    topic = kit.topic(partitions=2)
    kit.fill(topic, 5)
    kit.fill(topic, 5, start=10, partition=1)
    reader = reading(topic, since=0)
    sizes = []
    while not reader.at_end:
        sizes.append(len(reader.poll(3, 0.5)))
    assert sum(sizes) == 10
    assert max(sizes) <= 3
