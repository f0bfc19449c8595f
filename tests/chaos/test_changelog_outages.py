"""A changelog on Kafka while the broker stops answering or dies, and an owner that is suspended."""

import os
import random
import signal
import subprocess
import sys
import threading
import time

import pytest

from tieline.api import FencedError, RetriableError, TopicPartition
from tieline.broker.kafka import transactions
from tieline.broker.kafka.broker import KafkaBroker
from tieline.broker.records import ProducerRecord
from tieline_lab import kafka

pytestmark = pytest.mark.kafka
AT = TopicPartition("commands", 0)
QUICK = {"session.timeout.ms": "6000", "heartbeat.interval.ms": "300"}


class Owned:
    """The partitions of a consumer, as the callbacks of its rebalances report them."""

    def __init__(self):
        self.partitions = set()

    def assigned(self, partitions):
        self.partitions |= set(partitions)

    def revoked(self, partitions):
        self.partitions -= set(partitions)

    lost = revoked


def broker(bootstrap):
    return KafkaBroker(bootstrap, {}, offsets_topic="offsets", offsets_partitions=1, offsets_replication=1)


def owner(kafka_broker, group="group"):
    consumer, owned = kafka_broker.consumer(group, "test", QUICK), Owned()
    consumer.subscribe([AT.topic], None, owned)
    deadline = time.monotonic() + 60
    while AT not in owned.partitions:
        consumer.poll(10, 0.1)
        assert time.monotonic() < deadline
    return consumer, taken_over(consumer)


def taken_over(consumer):
    return answered(lambda: consumer.changelog("group-commands-changelog", AT, 10.0))


def answered(call):
    """Return or raise what the call does; repeat it while the broker starts or resumes."""
    deadline = time.monotonic() + 60
    while True:
        try:
            return call()
        except RetriableError:
            assert time.monotonic() < deadline


def committed(consumer):
    stored = answered(lambda: consumer.committed([AT], 10.0))
    return {partition: position.offset for partition, position in stored.items()}


def results(kafka_broker):
    values = []
    kafka_broker.read("results", lambda record: values.append(record.value))
    return values


@pytest.fixture
def server(tmp_path):
    if reason := kafka.why_not():
        pytest.skip(reason)
    with kafka.KafkaServer(tmp_path / "kafka") as server:
        kafka_broker = broker(server.bootstrap)
        for topic in (AT.topic, "results"):
            kafka_broker.create_topic(topic, partitions=1)
        yield server


def test_a_broker_that_stops_answering_during_a_write_loses_and_duplicates_nothing(server):
    kafka_broker, dice, number, done = broker(server.bootstrap), random.Random(7), 0, threading.Event()
    consumer, changelog = owner(kafka_broker)
    retried = []

    def write():
        nonlocal number
        while not done.is_set():
            try:
                changelog.write(
                    {b"latest": b"%d" % number},
                    [ProducerRecord("results", b"%d" % number)],
                    number + 1,
                    0.4,
                )
                number += 1
            except RetriableError as error:
                retried.append(str(error))

    def poll():
        while not done.is_set():
            consumer.poll(10, 0.05)

    threads = [threading.Thread(target=write), threading.Thread(target=poll)]
    for thread in threads:
        thread.start()
    for pause in (0.7, 0.2, 1.5, 0.5):
        time.sleep(dice.uniform(0.3, 0.6))
        os.kill(server.process.pid, signal.SIGSTOP)
        time.sleep(pause)
        os.kill(server.process.pid, signal.SIGCONT)
    time.sleep(0.3)
    server.kill()
    server.start()
    before = number
    deadline = time.monotonic() + 60
    while number < before + 20:
        assert time.monotonic() < deadline, "\n".join(retried[-3:])
        time.sleep(0.05)
    done.set()
    for thread in threads:
        thread.join()
    print(f"{number} writes, {len(retried)} without an answer")
    assert retried
    _check_against_a_new_owner(kafka_broker, consumer, changelog, number)


def _check_against_a_new_owner(kafka_broker, consumer, changelog, number):
    again = consumer.changelog("group-commands-changelog", AT, 10.0)
    with pytest.raises(FencedError):
        changelog.write({b"latest": b"no"}, [], None, 5.0)
    count = int(again.entries[b"latest"]) + 1
    assert count in (number, number + 1)  # the last call may have had no answer
    assert results(kafka_broker) == [b"%d" % n for n in range(count)]
    assert committed(consumer) == {AT: count}
    for one in (changelog, again):
        one.close(1.0)
    consumer.close(5.0)


def test_an_owner_whose_client_broke_does_not_return_after_another_has_written(server, monkeypatch):
    """If it opened a new client, it would fence the new owner, although its own entries are outdated."""
    monkeypatch.setattr(transactions, "_BROKEN_AFTER", 0.0)  # broken by the first call without an answer
    kafka_broker = broker(server.bootstrap)
    first, old = owner(kafka_broker, "first")
    old.write({b"attempt": b"1"}, [], None, 10.0)
    os.kill(server.process.pid, signal.SIGSTOP)
    try:
        with pytest.raises(RetriableError):
            old.write({b"attempt": b"1, again"}, [], None, 0.2)
    finally:
        os.kill(server.process.pid, signal.SIGCONT)
    second = kafka_broker.consumer("second", "test", QUICK)
    new = taken_over(second)
    new.write({b"attempt": b"2"}, [], None, 10.0)
    with pytest.raises(FencedError, match="another owner has written it"):
        answered(lambda: old.write({b"attempt": b"3"}, [], None, 10.0))
    with pytest.raises(FencedError):
        new.write({b"attempt": b"3"}, [], None, 10.0)  # the old owner's client is newer: take over again
    again = taken_over(second)
    assert again.entries[b"attempt"] == b"2"
    for changelog in (old, new, again):
        changelog.close(1.0)
    for consumer in (first, second):
        consumer.close(5.0)


ZOMBIE = """
import sys
from tests.chaos.test_changelog_outages import *
consumer, changelog = owner(broker(sys.argv[1]))
number = 0
while True:
    number += 1
    try:
        changelog.write({b"zombie": b"%d" % number}, [ProducerRecord("results", b"zombie")], number, 5.0)
        print("wrote", flush=True)
    except RetriableError as error:
        print("refused", flush=True)
    except FencedError:
        print("FENCED", flush=True)
        sys.exit(7)
"""


def test_a_suspended_owner_is_fenced_when_it_resumes_and_none_of_its_writes_is_visible(server):
    zombie = subprocess.Popen(
        [sys.executable, "-c", ZOMBIE, server.bootstrap], stdout=subprocess.PIPE, text=True
    )
    assert zombie.stdout is not None
    try:
        for _ in range(20):
            assert zombie.stdout.readline() == "wrote\n"
        os.kill(zombie.pid, signal.SIGSTOP)
        kafka_broker = broker(server.bootstrap)
        consumer, changelog = owner(kafka_broker)
        before, offset = results(kafka_broker), committed(consumer)[AT]
        assert changelog.entries[b"zombie"] == b"%d" % len(before)
        assert offset == len(before) >= 20
        changelog.write({b"mine": b"1"}, [ProducerRecord("results", b"mine")], 1_000_000, 10.0)
        os.kill(zombie.pid, signal.SIGCONT)
        assert zombie.wait(30) == 7
        assert zombie.stdout.read().split()[-1] == "FENCED"
        changelog.close(1.0)
        changelog = consumer.changelog("group-commands-changelog", AT, 10.0)  # shows all that was committed
        assert results(kafka_broker) == [*before, b"mine"]
        assert committed(consumer) == {AT: 1_000_000}
        changelog.close(1.0)
        consumer.close(5.0)
    finally:
        zombie.kill()
        zombie.wait()
        zombie.stdout.close()
