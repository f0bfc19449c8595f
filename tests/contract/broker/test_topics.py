"""Topics, reading to the end, source offsets and being the only writer, on both backends."""

import threading
import time

import pytest

from tieline.api import DataError, FatalError, RetriableError
from tieline.broker.records import ConsumedRecord, ProducerRecord, Unit


def test_a_topic_is_created_once(kit):
    name = kit.name()
    assert kit.broker.create_topic(name, partitions=3)
    assert not kit.broker.create_topic(name, partitions=5)
    assert kit.broker.topics()[name].partitions == 3


def test_an_illegal_topic_name_is_fatal_or_a_data_error(kit):
    with pytest.raises((FatalError, DataError)):
        kit.broker.create_topic("no/slash", partitions=1)


def test_a_recreated_topic_has_another_id_and_none_of_the_old_records(kit):
    topic = kit.topic()
    kit.fill(topic, 3)
    before = kit.broker.topics()[topic]
    assert before.name == topic
    assert kit.delete_topic(topic)
    deadline = time.monotonic() + 30
    while topic in kit.broker.topics():
        assert time.monotonic() < deadline
    while not kit.broker.create_topic(topic, partitions=1):
        assert time.monotonic() < deadline
    while topic not in kit.broker.topics():
        assert time.monotonic() < deadline
    assert kit.broker.topics()[topic].id != before.id
    assert kit.read(topic) == []


def test_deleting_a_missing_topic_is_reported(kit):
    assert not kit.delete_topic(kit.name())


def test_the_id_of_the_cluster_stays(kit):
    assert kit.broker.cluster_id == kit.broker.cluster_id != ""


def test_read_goes_to_the_end_and_on_from_there(kit):
    topic = kit.topic(partitions=3)
    kit.fill(topic, 5, partition=0)
    kit.fill(topic, 3, start=10, partition=2)
    records: list[ConsumedRecord] = []
    position = kit.broker.read(topic, records.append)
    assert position == {0: 5, 1: 0, 2: 3}
    assert sorted(int(record.value or b"") for record in records) == [0, 1, 2, 3, 4, 10, 11, 12]
    assert kit.broker.read(topic, records.append, start=position) == position
    kit.fill(topic, 2, start=20, partition=1)
    assert kit.broker.read(topic, records.append, start=position) == {0: 5, 1: 2, 2: 3}
    assert [int(record.value or b"") for record in records[8:]] == [20, 21]


def test_read_skips_deleted_records_and_ends_after_transaction_markers(kit):
    topic = kit.topic()
    for n in range(4):
        with kit.broker.exclusive(topic) as log:
            log.append([ProducerRecord(topic, b"%d" % n)])
    kit.delete_before(topic, 0, 1)
    records: list[ConsumedRecord] = []
    position = kit.broker.read(topic, records.append)
    assert [record.value for record in records] == [b"1", b"2", b"3"]
    assert kit.broker.read(topic, records.append, start=position) == position
    assert len(records) == 3


def test_reading_a_missing_topic_returns_nothing(kit):
    records: list[ConsumedRecord] = []
    assert kit.broker.read(kit.name(), records.append) == {}
    assert records == []


def test_a_read_without_enough_time_is_retriable(kit):
    topic = kit.topic()
    kit.fill(topic, 10)
    with pytest.raises(RetriableError):
        kit.broker.read(topic, lambda record: None, timeout=0)


def test_an_error_of_the_visitor_ends_the_reading(kit):
    topic = kit.topic()
    kit.fill(topic, 10)

    def visit(record):
        raise LookupError("enough")

    with pytest.raises(LookupError, match="enough"):
        kit.broker.read(topic, visit)


def test_source_offsets_are_stored_once_delivered_and_saved(kit):
    topic, connector, producer = kit.topic(), kit.name(), kit.producer()
    assert kit.broker.source_offsets(connector, 20) == {}
    offsets = {'{"file":"a"}': '{"line":3}', '{"file":"b"}': '{"line":7}'}
    producer.send(Unit([ProducerRecord(topic, b"v")], connector, offsets))
    kit.ends(producer, 1)
    producer.save_offsets(connector, offsets, 20)
    assert kit.broker.source_offsets(connector, 20) == offsets
    later = {'{"file":"a"}': '{"line":9}'}
    producer.send(Unit([], connector, later))
    kit.ends(producer, 1)
    producer.save_offsets(connector, later, 20)
    assert kit.broker.source_offsets(connector, 20) == offsets | later
    assert kit.broker.source_offsets(kit.name(), 20) == {}


def test_notes_are_stored_with_source_offsets_and_an_offset_without_a_note_removes_the_previous_one(kit):
    connector, producer = kit.name(), kit.producer()
    assert kit.broker.source_notes(connector, 20) == {}

    def save(offsets, notes):
        producer.send(Unit([], connector, offsets, notes))
        kit.ends(producer, 1)
        producer.save_offsets(connector, offsets, 20, notes)

    a, b, c = '{"file":"a"}', '{"file":"b"}', '{"file":"ü"}'.replace("ü", "\\u00fc")
    save({a: '{"line":3}', b: '{"line":7}', c: '{"line":1}'}, {a: "ä", b: "b7", c: "c"})
    assert kit.broker.source_notes(connector, 20) == {a: "ä", b: "b7", c: "c"}
    assert kit.broker.source_offsets(connector, 20) == {a: '{"line":3}', b: '{"line":7}', c: '{"line":1}'}
    save({a: '{"line":4}', b: '{"line":7}'}, {a: "a4"})
    assert kit.broker.source_notes(connector, 20) == {a: "a4", c: "c"}
    kit.broker.offsets.save_source(connector, {a: '{"line":4}', c: None}, 20)
    assert kit.broker.source_offsets(connector, 20) == {a: '{"line":4}', b: '{"line":7}'}
    assert kit.broker.source_notes(connector, 20) == {}
    assert kit.broker.source_notes(kit.name(), 20) == {}


def test_after_a_failed_record_notes_are_stored_when_the_offsets_are_saved(kit):
    topic, connector, producer = kit.topic(), kit.name(), kit.producer()
    bad = ProducerRecord(topic, b"v", partition=99)
    offsets = {'{"file":"a"}': '{"line":1}'}
    producer.send(Unit([bad], connector, offsets, {'{"file":"a"}': "expected"}))
    kit.ends(producer, 1)
    assert kit.broker.source_notes(connector, 20) == {}
    producer.save_offsets(connector, offsets, 20, {'{"file":"a"}': "what it became"})
    assert kit.broker.source_offsets(connector, 20) == offsets
    assert kit.broker.source_notes(connector, 20) == {'{"file":"a"}': "what it became"}


def test_a_unit_with_a_failed_record_saves_no_offsets_by_itself_nor_does_a_later_one(kit):
    topic, connector, producer = kit.topic(), kit.name(), kit.producer()
    bad = ProducerRecord(topic, b"v", partition=99)
    producer.send(Unit([bad], connector, {'{"file":"a"}': '{"line":1}'}))
    producer.send(Unit([ProducerRecord(topic, b"v")], connector, {'{"file":"a"}': '{"line":2}'}))
    kit.ends(producer, 2)
    assert kit.broker.source_offsets(connector, 20) == {}


def test_records_of_an_exclusive_writer_are_visible_when_it_returns(kit):
    topic = kit.topic()
    with kit.broker.exclusive(topic) as log:
        log.append([ProducerRecord(topic, b"0", b"key", (("h", None),))])
        log.append([ProducerRecord(topic, b"1")])
        assert kit.read(topic) == []
    records = kit.read(topic)
    assert [record.value for record in records] == [b"0", b"1"]
    assert (records[0].key, records[0].headers) == (b"key", (("h", None),))


def test_an_exclusive_writer_that_fails_writes_nothing(kit):
    topic = kit.topic()

    def fail(log):
        log.append([ProducerRecord(topic, b"0")])
        raise LookupError

    with pytest.raises(LookupError), kit.broker.exclusive(topic) as log:
        fail(log)
    assert kit.read(topic) == []


def test_an_exclusive_writer_writes_all_or_nothing(kit):
    topic = kit.topic(max_message_bytes="20000")
    with pytest.raises(DataError) as caught, kit.broker.exclusive(topic) as log:
        log.append([ProducerRecord(topic, b"0"), ProducerRecord(topic, b"1", partition=9)])
    assert set(caught.value.failures) == {1}
    assert kit.read(topic) == []


@pytest.mark.slow
def test_of_two_exclusive_writers_one_wins(kit):
    topic = kit.topic()
    inside, over = threading.Event(), threading.Event()
    outcomes: dict[str, RetriableError | None] = {}

    def hold(name, wait):
        try:
            with kit.broker.exclusive(topic, timeout=2.0) as log:
                inside.set()
                log.append([ProducerRecord(topic, name.encode())])
                if wait:
                    over.wait(30)
            outcomes[name] = None
        except RetriableError as error:
            outcomes[name] = error

    first = threading.Thread(target=hold, args=("first", True))
    first.start()
    assert inside.wait(30)
    hold("second", False)
    over.set()
    first.join(60)
    assert len(outcomes) == 2
    (winner,) = [name for name, error in outcomes.items() if error is None]
    assert [record.value for record in kit.read(topic)] == [winner.encode()]


def test_consecutive_exclusive_writers_all_write(kit):
    topic = kit.topic()
    for n in range(3):
        with kit.broker.exclusive(topic) as log:
            assert len(kit.read(topic)) == n
            log.append([ProducerRecord(topic, b"%d" % n)])
    assert [record.value for record in kit.read(topic)] == [b"0", b"1", b"2"]
