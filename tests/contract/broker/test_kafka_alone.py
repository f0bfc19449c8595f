"""What only a real Kafka can show."""

import ctypes
import json
import os
import threading
import time
from concurrent.futures import Future

import pytest
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka import Producer as RawProducer
from tests.contract.broker.conftest import Listener

from tieline.api import AccessDeniedError, DataError, FatalError, RetriableError, TopicPartition
from tieline.broker.kafka.cluster import Cluster
from tieline.broker.kafka.codes import Operation
from tieline.broker.kafka.errors import UNKNOWN_PARTITION, to_tieline_error
from tieline.broker.kafka.reading import read_to_end
from tieline.broker.port import RefusedNowError, UnreadableError
from tieline.broker.records import UNREADABLE_HEADERS, Committed, ConsumedRecord, ProducerRecord, Unit

ROUNDS = int(os.environ.get("TIELINE_TEST_ROUNDS", "5"))


@pytest.fixture
def kit(kafka_kit):
    return kafka_kit


def _raw(kit, **settings):
    names = {key.replace("_", "."): value for key, value in settings.items()}
    return RawProducer({"bootstrap.servers": kit.bootstrap, **names})


def test_records_of_an_aborted_transaction_are_never_seen(kit):
    topic, group = kit.topic(), kit.name()
    partition = TopicPartition(topic, 0)
    raw = _raw(kit, transactional_id=kit.name())
    raw.init_transactions(30)
    kit.fill(topic, 2)
    raw.begin_transaction()
    raw.produce(topic, b"aborted")
    raw.flush(30)
    raw.abort_transaction(30)
    kit.fill(topic, 1, start=2)
    assert [record.value for record in kit.read(topic)] == [b"0", b"1", b"2"]
    consumer, _ = kit.member(group, [topic])
    records = kit.take(consumer, 3)
    assert [record.value for record in records] == [b"0", b"1", b"2"]
    assert records[2].offset > 3  # a hole, and a marker
    consumer.commit({partition: records[2].offset + 1}, 10)
    kit.until(lambda: consumer.lag() == {partition: 0}, consumer)


def test_read_ends_before_a_transaction_that_is_still_open(kit):
    topic = kit.topic()
    raw = _raw(kit, transactional_id=kit.name())
    raw.init_transactions(30)
    kit.fill(topic, 2)
    raw.begin_transaction()
    raw.produce(topic, b"open")
    raw.flush(30)
    records: list[ConsumedRecord] = []
    position = kit.broker.read(topic, records.append)
    assert [record.value for record in records] == [b"0", b"1"]
    raw.commit_transaction(30)
    kit.broker.read(topic, records.append, start=position)
    assert [record.value for record in records] == [b"0", b"1", b"open"]


def test_offsets_are_stored_as_kafka_connect_stores_them(kit):
    connector = kit.name()
    producer = kit.producer()
    partition = '{"filename":"a b"}'
    producer.save_offsets(connector, {partition: '{"position":7}'}, 20)
    producer.save_offsets(connector, {partition: '{"position":8}'}, 20, {partition: "note"})
    records = [r for r in kit.read("suite-offsets") if connector.encode() in (r.key or b"")]
    assert [(json.loads(r.key), json.loads(r.value), r.headers) for r in records] == [
        ([connector, {"filename": "a b"}], {"position": 7}, ()),
        ([connector, {"filename": "a b"}], {"position": 8}, (("tieline.note", b"note"),)),
    ]


def test_the_note_of_an_offset_that_kafka_connect_moved_is_gone_and_a_huge_note_is_ignored(kit):
    connector, partition = kit.name(), '{"a":1}'
    kit.producer().save_offsets(connector, {partition: '{"n":1}'}, 20, {partition: "note"})
    assert kit.broker.source_notes(connector, 20) == {partition: "note"}
    raw = _raw(kit, partitioner="murmur2_random")
    for headers in (None, [("tieline.note", b"x" * 4097)], [("tieline.note", None)]):
        raw.produce("suite-offsets", b'{"n":2}', f'["{connector}",{{"a":1}}]', headers=headers)
        raw.flush(30)
        assert kit.broker.source_offsets(connector, 20) == {partition: '{"n":2}'}
        assert kit.broker.source_notes(connector, 20) == {}


def test_offsets_that_kafka_connect_wrote_are_read_and_tombstones_and_rubbish_do_no_harm(kit):
    connector = kit.name()
    kit.producer().save_offsets(connector, {'{"a":1}': "{}"}, 20)
    raw = _raw(kit, partitioner="murmur2_random")  # Connect's; the tombstone goes to what it deletes
    for key, value in [
        (f'["{connector}", {{"z": 1, "b": null}}]', b'{"position": 3}'),
        (f'["{connector}",{{"a":1}}]', None),
        (f'["{connector}"]', b"{}"),
        (f'["{connector}",{{"x":1}}]', b"[" * 100_000),
        (f'["{connector}",7]', b"{}"),
        ("\udcff".encode("utf-8", "surrogateescape"), b"{}"),
    ]:
        raw.produce("suite-offsets", value, key)
        raw.flush(30)
    (stored,) = kit.broker.source_offsets(connector, 20).items()
    assert stored[0] == '{"b":null,"z":1}'
    assert json.loads(stored[1]) == {"position": 3}


def test_partitions_of_an_evicted_member_are_lost_and_it_commits_nothing(kit):
    topic, group = kit.topic(), kit.name()
    partition = TopicPartition(topic, 0)
    kit.fill(topic, 5)
    patience = {"session.timeout.ms": "6000", "max.poll.interval.ms": "6000", "heartbeat.interval.ms": "200"}
    slow = kit.broker.consumer(group, "slow", patience)
    listener = type(kit.member(kit.name(), [topic])[1])()
    slow.subscribe([topic], None, listener)
    assert len(kit.take(slow, 5)) == 5
    second, two = kit.member(group, [topic])
    # The first one no longer polls, so the group gives up on it.
    kit.until(lambda: two.owned == {partition}, second)
    assert len(kit.take(second, 5)) == 5
    with pytest.raises(RetriableError):
        slow.commit({partition: 5}, 10)
    kit.until(lambda: ("lost", frozenset({partition})) in listener.events, slow)
    assert not [event for event, _ in listener.events if event == "revoked"]
    with pytest.raises(RetriableError, match="not owned any more"):
        slow.commit({partition: 5}, 10)
    assert second.committed([partition], 10) == {}
    slow.close(10)


def test_partitions_that_return_after_a_lost_session_deliver_records_although_they_were_paused(kit):
    topic = kit.topic(partitions=2)
    both = frozenset({TopicPartition(topic, 0), TopicPartition(topic, 1)})
    patience = {"session.timeout.ms": "6000", "max.poll.interval.ms": "6000", "heartbeat.interval.ms": "200"}
    consumer = kit.broker.consumer(kit.name(), "slow", patience)
    listener = type(kit.member(kit.name(), [topic])[1])()
    consumer.subscribe([topic], None, listener)
    kit.until(lambda: listener.owned == both, consumer)
    consumer.pause(sorted(both))
    kit.fill(topic, 3)
    kit.fill(topic, 3, partition=1)
    time.sleep(6.5)  # the limit of the client itself, which gives up on an application that does not poll
    # It reports them as revoked if it is polled again while it leaves the group.
    given_up = [("lost", both)], [("revoked", both)]
    records = kit.until(lambda: listener.events[1:2] in given_up, consumer)  # perhaps with the first records
    records += kit.take(consumer, 6 - len(records))
    assert sorted(record.value for record in records) == [b"0", b"0", b"1", b"1", b"2", b"2"]
    consumer.close(10)


def test_records_of_a_fenced_writer_are_never_visible(kit):
    topic = kit.topic()
    record = ProducerRecord(topic, b"late")

    def write_late():
        with kit.broker.exclusive(topic) as first:
            first.append([record])
            with kit.broker.exclusive(topic) as second:
                second.append([record._replace(value=b"won")])

    with pytest.raises(RetriableError, match="_FENCED"):
        write_late()
    assert [r.value for r in kit.read(topic)] == [b"won"]


def test_the_first_records_of_a_new_topic_are_all_stored(kit):
    """KAFKA-15591: two requests on their way while the leader is being made, and the first was lost though
    it was acknowledged, in about one of five topics.
    """
    producer = kit.producer(linger_ms="0", topic_metadata_refresh_fast_interval_ms="10")
    producer.send(Unit([ProducerRecord(kit.topic(), b"")]))
    kit.ends(producer, 1)  # it is connected
    for _ in range(25):
        topic = kit.topic(partitions=6)
        sent = acknowledged = 0
        until = time.monotonic() + 0.1
        while time.monotonic() < until or acknowledged < sent:
            if time.monotonic() < until:
                producer.send(Unit([ProducerRecord(topic, b"%d" % sent, partition=p) for p in range(6)]))
                sent += 6
            acknowledged += sum(len(d.unit.records) - len(d.failures) for d in producer.poll(0.001))
        assert len(kit.read(topic)) == sent


def test_records_refused_with_their_batch_are_sent_again_alone(kit):
    """The topic takes less than a batch holds: each record fits, all together do not."""
    topic = kit.topic(max_message_bytes="50000")
    producer = kit.producer(compression_type="none", linger_ms="50")
    values = [b"%04d" % n + b"." * 1000 for n in range(1000)]
    producer.send(Unit([ProducerRecord(topic, value) for value in values]))
    producer.send(Unit([ProducerRecord(topic, b"last")]))
    first, second = kit.ends(producer, 2)
    assert (first.failures, second.failures) == ({}, {})
    stored = [record.value for record in kit.read(topic)]
    assert [value for n, value in enumerate(stored) if value not in stored[n + 1 :]] == [*values, b"last"]


def test_a_future_timestamp_is_a_retriable_error_and_affects_no_other_record(kit):
    topic, producer = kit.topic(), kit.producer(linger_ms="50")
    now = int(time.time() * 1000)
    ahead = now + 90 * 60_000  # more than message.timestamp.after.max.ms
    times = [ahead if n % 3 == 0 else now for n in range(9)]
    producer.send(
        Unit([ProducerRecord(topic, b"%d" % n, timestamp=timestamp) for n, timestamp in enumerate(times)])
    )
    (delivery,) = kit.ends(producer, 1)
    assert set(delivery.failures) == {0, 3, 6}
    for failure in delivery.failures.values():
        assert isinstance(failure, DataError)
        assert all(isinstance(cause, RefusedNowError) for cause in failure.failures.values())
    assert sorted(record.value for record in kit.read(topic)) == [b"1", b"2", b"4", b"5", b"7", b"8"]


def test_a_changelog_whose_end_an_open_transaction_hides_is_not_used(kit):
    """Its hidden entries could be commands that were already executed."""
    topic = kit.topic()
    partition, changelog = TopicPartition(topic, 0), f"{topic}-changelog"
    consumer, listener = kit.member(kit.name(), [topic])
    kit.until(lambda: partition in listener.owned, consumer)
    assert kit.broker.create_topic(changelog)
    raw = _raw(kit, transactional_id=kit.name())
    raw.init_transactions(30)
    raw.begin_transaction()
    raw.produce(changelog, b"hidden", b"key")
    raw.flush(30)

    def open_changelog():
        deadline = time.monotonic() + 30
        while True:
            try:
                return consumer.changelog(changelog, partition, 10.0)
            except RetriableError as error:
                if "open transaction" in str(error) or time.monotonic() > deadline:
                    raise

    with pytest.raises(RetriableError, match="an open transaction hides the offsets from 0 to 1"):
        open_changelog()
    raw.commit_transaction(30)
    deadline = time.monotonic() + 30
    opened = None
    while opened is None:
        assert time.monotonic() < deadline
        try:
            opened = open_changelog()
        except RetriableError:
            continue
    assert opened.entries == {b"key": b"hidden"}
    opened.close(5.0)


def test_the_end_of_a_partition_that_does_not_exist_yet_is_not_a_data_error(kit):
    """During a broker's restart the partitions of a topic are unknown for a moment."""
    changelog = kit.topic()
    with pytest.raises(RetriableError):
        read_to_end(
            {"bootstrap.servers": kit.bootstrap, "group.id": "suite"}, changelog, print, {}, 5.0, only=3
        )
    assert isinstance(
        to_tieline_error(KafkaError(UNKNOWN_PARTITION), "reading", Operation.METADATA),
        RetriableError,
    )


@pytest.mark.parametrize("paused", [False, True])
@pytest.mark.parametrize("partitions", [1, 2])
def test_a_topic_recreated_again_and_again_delivers_all_records_under_its_own_id(kit, partitions, paused):
    topic = kit.topic(partitions=partitions)
    consumer = kit.broker.consumer(kit.name(), "suite", {})  # whose metadata are as old as they may be
    listener = type(kit.member(kit.name(), [kit.topic()])[1])()
    consumer.subscribe([topic], None, listener)
    kit.until(lambda: len(listener.owned) == partitions, consumer)
    for number in range(ROUNDS + 1):  # the first reads what is deleted in the second
        if paused:  # as a sink does in an outage
            consumer.pause(sorted(listener.owned))
        if number:
            kit.recreate(topic, partitions)
        count = 3 if number == 0 else 10
        values = [b"%d" % n for n in range(100 * number, 100 * number + count)]
        kit.produce(*(ProducerRecord(topic, v, partition=i % partitions) for i, v in enumerate(values)))
        if paused:
            consumer.resume(sorted(listener.owned))
        arrivals: list[tuple[bytes | None, str | None]] = []
        deadline = time.monotonic() + 20
        while len(arrivals) < count and time.monotonic() < deadline:
            arrivals += [(record.value, consumer.topic_id(topic)) for record in consumer.poll(100, 0.2)]
        new = kit.broker.topics()[topic].id
        assert sorted(arrivals) == [(value, new) for value in sorted(values)], f"round {number}"
    consumer.close(10)


def test_records_wait_with_a_reason_until_the_user_may_describe_their_topic(kit, monkeypatch):
    topic = kit.topic()
    kit.fill(topic, 3)
    refusal: Future[None] = Future()
    refusal.set_exception(KafkaException(KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED)))
    describe, allowed = Cluster.descriptions, threading.Event()

    def descriptions(cluster, topics):
        return describe(cluster, topics) if allowed.is_set() else dict.fromkeys(topics, refusal)

    monkeypatch.setattr(Cluster, "descriptions", descriptions)
    consumer, _ = kit.member(kit.name(), [topic])
    with pytest.raises(AccessDeniedError, match="looking at the id of a topic: TOPIC_AUTHORIZATION_FAILED"):
        kit.until(lambda: False, consumer)
    allowed.set()
    assert [record.value for record in kit.take(consumer, 3)] == [b"0", b"1", b"2"]


@pytest.mark.parametrize(
    ("policy", "come", "skipped"),
    [
        ("earliest", [6, 7, 8, 9], [(2, 6, "expired")]),
        ("latest", [], [(2, 6, "expired"), (6, 10, "reset")]),
    ],
)
def test_auto_offset_reset_decides_where_to_continue_and_skipped_records_are_reported(
    kit, policy, come, skipped
):
    topic, group = kit.topic(), kit.name()
    partition = TopicPartition(topic, 0)
    kit.fill(topic, 10)
    first, _ = kit.member(group, [topic])
    kit.take(first, 2)
    first.commit({partition: 2}, 10)
    first.close(10)
    kit.delete_before(topic, 0, 6)
    consumer = kit.broker.consumer(group, "suite", {"auto.offset.reset": policy})
    consumer.subscribe([topic], None, type(kit.member(kit.name(), [kit.topic()])[1])())
    reported: list[tuple[int, int, str]] = []

    def passed_over():
        reported.extend((first, end, reason) for _, first, end, reason in consumer.skipped())
        return reported == skipped

    records = kit.until(passed_over, consumer)
    records += kit.take(consumer, len(come) - len(records))
    assert [record.offset for record in records] == come
    kit.fill(topic, 1, start=10)
    assert [record.offset for record in kit.take(consumer, 1)] == [10]
    consumer.close(10)


@pytest.mark.parametrize("committed", [2, None])
def test_with_auto_offset_reset_error_a_reader_stops_and_names_the_range_and_the_command(kit, committed):
    topic, group = kit.topic(), f"connect-{kit.name()}"
    kit.fill(topic, 10)
    if committed is not None:
        first, _ = kit.member(group, [topic])
        kit.take(first, 2)
        first.commit({TopicPartition(topic, 0): committed}, 10)
        first.close(10)
        kit.delete_before(topic, 0, 6)
    consumer = kit.broker.consumer(group, "suite", {"auto.offset.reset": "error"})
    consumer.subscribe([topic], None, type(kit.member(kit.name(), [kit.topic()])[1])())
    why = "the 4 offsets from 2 to 5 have expired" if committed else "has committed no offset"
    offset = 6 if committed else 0
    name = group.removeprefix("connect-")
    with pytest.raises(FatalError, match=why) as caught:
        kit.until(lambda: False, consumer)
    assert f"tieline offsets set {name} --worker FILE --topic {topic} --partition 0 --to {offset}" in str(
        caught.value
    )
    consumer.close(10)


def _one_batch(kit, topic, megabytes):
    """Zeros, which take a few kB compressed, in one batch."""
    raw = _raw(
        kit,
        compression_type="zstd",
        message_max_bytes=str(200 << 20),
        batch_size=str(200 << 20),
        linger_ms="2000",
        queue_buffering_max_kbytes=str(400 << 10),
    )
    for _ in range(megabytes):
        raw.produce(topic, bytes(1 << 20))
    assert raw.flush(60) == 0


def test_a_small_batch_that_unpacks_to_90_mb_is_read(kit):
    topic = kit.topic()
    _one_batch(kit, topic, 90)
    kit.fill(topic, 1)
    consumer, _ = kit.member(kit.name(), [topic])
    assert [len(r.value) for r in kit.take(consumer, 91)] == [1 << 20] * 90 + [1]


def _with_header(kit, topic, name):
    """A record with a header of any name: from C, Go and others it may be any bytes, from Python not."""
    with open("/proc/self/maps") as maps:
        path = next(line.split()[-1] for line in maps if "librdkafka" in line)
    client = ctypes.CDLL(path)
    for function in (client.rd_kafka_conf_new, client.rd_kafka_new, client.rd_kafka_headers_new):
        function.restype = ctypes.c_void_p
    settings = ctypes.c_void_p(client.rd_kafka_conf_new())
    client.rd_kafka_conf_set(settings, b"bootstrap.servers", kit.bootstrap.encode(), None, 0)
    producer = ctypes.c_void_p(client.rd_kafka_new(0, settings, None, 0))
    headers = ctypes.c_void_p(client.rd_kafka_headers_new(1))
    client.rd_kafka_header_add(headers, name, ctypes.c_ssize_t(len(name)), b"1", ctypes.c_ssize_t(1))
    # RD_KAFKA_VTYPE_TOPIC, _VALUE, _HEADERS, _END
    arguments = topic.encode(), 4, b"bad", ctypes.c_size_t(3), 10, headers, 0
    assert client.rd_kafka_producev(producer, 1, *arguments) == 0
    assert client.rd_kafka_flush(producer, 30_000) == 0
    client.rd_kafka_destroy(producer)


def test_a_header_whose_name_is_not_utf_8_stops_no_reader_and_its_record_comes_without_headers(kit):
    topic = kit.topic()
    kit.fill(topic, 100)  # Python takes its fast path for a call only after some calls
    _with_header(kit, topic, b"\xff\xfe")
    _with_header(kit, topic, b"fine")
    consumer, _ = kit.member(kit.name(), [topic])
    expected = [()] * 100 + [UNREADABLE_HEADERS, (("fine", b"1"),)]
    assert [r.headers for r in kit.take(consumer, 102)] == expected
    read: list[ConsumedRecord] = []
    kit.broker.read(topic, read.append)
    assert [r.headers for r in read] == expected


def test_a_batch_that_cannot_be_read_is_not_an_outage_and_the_error_names_place_and_fix(kit):
    topic = kit.topic()
    kit.fill(topic, 2)
    _one_batch(kit, topic, 20)
    consumer = kit.broker.consumer(
        "connect-s", "suite", {"receive.message.max.bytes": str(10 << 20), "fetch.max.bytes": str(1 << 20)}
    )
    consumer.subscribe([topic], None, type(kit.member(kit.name(), [kit.topic()])[1])())
    records: list[ConsumedRecord] = []

    def read_on():
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            records.extend(consumer.poll(100, 0.5))

    with pytest.raises(UnreadableError, match=f"{topic}-0 cannot be read: the batch at offset 2") as caught:
        read_on()
    assert len(records) == 2
    assert f"tieline offsets set s --worker FILE --topic {topic} --partition 0 --to" in str(caught.value)
    consumer.close(10)


def test_no_offset_is_committed_before_the_records_of_its_commit_are_acknowledged(kit):
    topic, dead = kit.topic(), kit.topic()
    partition = TopicPartition(topic, 0)
    kit.fill(topic, 5)
    consumer = kit.broker.consumer(kit.name(), "suite", {}, {"linger.ms": "5000"})  # sent only after that
    kit.at_close.append(lambda: consumer.close(10))
    consumer.subscribe([topic], None, Listener())
    kit.take(consumer, 5)
    letters = [ProducerRecord(dead, b"%d" % number) for number in range(3)]
    with pytest.raises(RetriableError, match="3 records"):
        consumer.commit({partition: 5}, 1, letters)
    answer = consumer.commit_async({partition: 5}, letters, {partition: "note"})
    end = time.monotonic() + 2
    kit.until(lambda: time.monotonic() > end, consumer)
    assert not answer.done()
    assert consumer.committed([partition], 10) == {}
    kit.until(answer.done, consumer)
    answer.result(0)
    assert consumer.committed([partition], 10) == {partition: Committed(5, "note")}
    written = [record.value for record in kit.read(dead)]  # those of the abandoned commit may be there, too
    assert written[-3:] == [b"0", b"1", b"2"]
    assert len(written) in (3, 6)


def test_records_are_not_written_again_if_only_the_commit_of_the_offsets_has_failed(kit):
    topic, dead, gone = kit.topic(), kit.topic(), kit.name()
    kit.fill(topic, 5)
    letters = [ProducerRecord(dead, b"%d" % number) for number in range(3)]
    consumer = kit.broker.consumer(kit.name(), "suite", {})  # without a subscription it may commit anything
    with pytest.raises(RetriableError):
        consumer.commit({TopicPartition(gone, 0): 5}, 10, letters)
    consumer.commit({TopicPartition(topic, 0): 4}, 10, letters)
    assert [record.value for record in kit.read(dead)] == [b"0", b"1", b"2"]
    consumer.commit({TopicPartition(topic, 0): 5}, 10, letters[:1])  # given again after a success
    assert [record.value for record in kit.read(dead)] == [b"0", b"1", b"2", b"0"]
    consumer.close(5)


def test_the_producer_of_a_commit_has_the_settings_of_the_connector(kit):
    topic, dead = kit.topic(), kit.topic()
    kit.fill(topic, 1)
    consumer = kit.broker.consumer(kit.name(), "suite", {}, {"message.max.bytes": "1000"})
    with pytest.raises(DataError):
        consumer.commit({TopicPartition(topic, 0): 1}, 10, [ProducerRecord(dead, b"x" * 2_000)])
    consumer.close(5)
