"""A sink loses its session during an outage of its store, and continues when the store is back."""

import os
import signal
import time
import uuid
from typing import Any

import pymongo
import pytest

from tieline.broker.records import ProducerRecord, Unit
from tieline.config.plan import check_plan
from tieline.runtime.worker.factory import open_broker
from tieline.testing.worker_process import WorkerProcess

pytestmark = [pytest.mark.kafka, pytest.mark.mongo]
SESSION = 6.0


def suspend_the_worker(server, worker):
    """Suspend the worker for longer than its session."""
    os.kill(worker.pid, signal.SIGSTOP)
    time.sleep(SESSION + 4)
    os.kill(worker.pid, signal.SIGCONT)


def kill_the_broker(server, worker):
    """Keep the broker down for longer than the session."""
    server.kill()
    time.sleep(SESSION * 2)
    server.start()


@pytest.mark.parametrize("lose_the_session", [suspend_the_worker, kill_the_broker])
def test_records_held_during_an_outage_arrive_although_the_session_was_lost(
    own_kafka, own_mongo, tmp_path, lose_the_session
):
    topic = f"held-{uuid.uuid4().hex[:8]}"
    settings = {"bootstrap.servers": own_kafka.bootstrap, "offset.storage.topic": f"offsets-{topic}"}
    broker = open_broker(check_plan("test", {**settings, "data.dir": str(tmp_path / "data")}, []))
    broker.create_topic(topic, partitions=2)
    producer = broker.producer("numbers", {})

    def produce(numbers):
        records = [ProducerRecord(topic, b'{"n": %d}' % n, b"%d" % n, partition=n % 2) for n in numbers]
        producer.send(Unit(records))
        while not producer.poll(1):
            pass

    sink = {
        "name": "mongo",
        "connector.class": "mongo",
        "topics": topic,
        "connection.uri": own_mongo.uri,
        "server.selection.timeout.ms": "500",
        "database": topic,
        "layout": "value",
        "value.converter": "json",
        "errors.retry.delay.max.ms": "1000",
        "consumer.override.session.timeout.ms": str(int(SESSION * 1000)),
    }
    with WorkerProcess(tmp_path, settings, [sink]) as worker:
        produce(range(100))
        worker.wait_for_ledger(lambda ledger: ledger["mongo"]["delivered"] == 100)
        own_mongo.stop()
        produce(range(100, 300))
        waiting = worker.wait_for_ledger(lambda ledger: ledger["mongo"]["lag"] == 200)
        assert waiting["mongo"]["delivered"] == 100
        lose_the_session(own_kafka, worker)
        worker.wait_for("partitions lost; records in flight will be read again", timeout=60)
        worker.wait_for("partitions assigned", timeout=60, count=2)
        worker.wait_for_ledger(lambda ledger: ledger["mongo"]["lag"] == 200)  # held again, and reported
        own_mongo.start()
        worker.wait_for_ledger(lambda ledger: ledger["mongo"]["delivered"] == 300)
        worker.wait_for_ledger(lambda ledger: ledger["mongo"]["lag"] == ledger["mongo"]["in_flight"] == 0)
        assert worker.stop() == 0
    producer.close(5)
    broker.close()
    with pymongo.MongoClient[dict[str, Any]](own_mongo.uri) as client:
        (collection,) = client[topic].list_collection_names()
        assert sorted(d["n"] for d in client[topic][collection].find({}, {"n": 1})) == list(range(300))
