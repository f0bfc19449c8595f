"""Readings with old and future timestamps, on a Kafka that deletes old records as often as it can."""

from __future__ import annotations

import collections
import datetime as dt
import time
from typing import Any

import pymongo
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from tieline.testing.worker_process import WorkerProcess
from tieline_connectors.volttron_bus.testing.fake_router import FakeRouter
from tieline_lab.kafka import KafkaServer

NOW = dt.datetime.now(dt.timezone.utc)
EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.timezone.utc)
OLD = [EPOCH + dt.timedelta(days=1), NOW - dt.timedelta(days=300)]  # a clock that has stopped, a back-fill
AHEAD = [NOW + dt.timedelta(days=1), dt.datetime(2199, 12, 31, tzinfo=dt.timezone.utc)]


@pytest.fixture
def kafka(tmp_path):
    often = {"log.retention.check.interval.ms": 200, "log.initial.task.delay.ms": 200}
    with KafkaServer(tmp_path / "kafka", settings=often) as server:
        yield server


def wait_for_retention(kafka):
    """Wait until Kafka has deleted a record of 1970 twice; the first may belong to an earlier round."""
    producer = Producer({"bootstrap.servers": kafka.bootstrap})
    consumer = Consumer({"bootstrap.servers": kafka.bootstrap, "group.id": "canary"})
    for number in (1, 2):
        producer.produce("canary", b"x", partition=0, timestamp=1)
        assert producer.flush(10) == 0
        deadline = time.monotonic() + 30
        while consumer.get_watermark_offsets(TopicPartition("canary", 0), timeout=10)[0] < number:
            assert time.monotonic() < deadline, "Kafka has not deleted what is old"
            time.sleep(0.1)
    consumer.close()


@pytest.mark.kafka
@pytest.mark.parametrize(
    "times", [OLD, AHEAD], ids=["old", "ahead"]
)  # a young record keeps its old neighbours
def test_records_with_old_or_future_timestamps_stay_in_kafka_until_their_sink_has_read_them(
    kafka, tmp_path, mongo_uri, times
):
    source = {
        "name": "bus",
        "connector.class": "volttron_bus",
        "platform.name": "lab",
        "bus.prefixes": "all",
        "topic": "readings",
    }
    sink = {
        "name": "mongo",
        "connector.class": "mongo",
        "topics": "readings",
        "connection.uri": mongo_uri,
        "database": f"retention_{kafka.port}",
        "collection": "readings",
    }
    settings = {"bootstrap.servers": kafka.bootstrap}
    sent: collections.Counter[tuple[int, dt.datetime]] = collections.Counter()
    with FakeRouter() as bus:
        source["volttron.address"] = bus.address
        with WorkerProcess(tmp_path / "source", settings, [source]) as worker:
            worker.wait_for("subscribed")
            for number in range(50):
                at = times[number % 2] + dt.timedelta(microseconds=number)
                bus.publish(
                    f"devices/campus/b/d{number}/all", {"TimeStamp": at.isoformat()}, [{"n": number}, {}]
                )
                sent[number, at] += 1
            worker.wait_for_ledger(lambda ledger: ledger["bus"]["delivered"] == 50)
            assert worker.stop() == 0
    wait_for_retention(kafka)
    with WorkerProcess(tmp_path / "sink", settings, [sink]) as worker:
        worker.wait_for_ledger(lambda ledger: ledger["mongo"]["delivered"] == 50)
        assert worker.stop() == 0
    client: pymongo.MongoClient[dict[str, Any]]
    with pymongo.MongoClient(mongo_uri) as client:
        found: list[dict[str, Any]] = list(client[sink["database"]]["readings"].find())
    stored = [(d["points"]["n"], EPOCH + dt.timedelta(microseconds=d["time_us"])) for d in found]
    assert collections.Counter(stored) == sent
