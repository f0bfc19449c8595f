"""After a crash and the redelivery, the rollups are those that the documents have."""

import json
import random
import time
import uuid
from contextlib import closing
from typing import Any

import pymongo
import pytest

from tieline.api import identity
from tieline.broker.records import ProducerRecord, Unit
from tieline.config.plan import check_plan
from tieline.runtime.worker.factory import open_broker
from tieline.testing.crash.runner import CrashPoint, Life, Step
from tieline.testing.worker_process import WorkerProcess
from tieline_connectors.mongo.query.rollup import build
from tieline_lab import mongo

pytestmark = pytest.mark.mongo

COUNT = 600
START = 1_767_225_600_000_000


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    if reason := mongo.why_not():
        pytest.skip(reason)
    with mongo.MongoServer(tmp_path_factory.mktemp("mongo")) as server:
        yield server


@pytest.fixture
def database(server):
    with pymongo.MongoClient[dict[str, Any]](server.uri) as client:
        yield client[f"crash_{uuid.uuid4().hex[:8]}"]


def readings(numbers):
    """Readings of two devices, seven seconds apart, out of order."""
    numbers = list(numbers)
    random.Random(5).shuffle(numbers)
    for number in numbers:
        device, moment = f"d{number % 2}", START + number * 7_000_000
        value = {
            "platform": "lab",
            "topic": f"devices/{device}/all",
            "device": device,
            "kind": "ALL",
            "sender": "platform.driver",
            "headers": {},
            "time": moment,
            "time_source": "TIMESTAMP",
            "received": moment,
            "points": {"temp": number / 7, "mode": "auto" if number % 50 else 1},
            "metadata": {},
        }
        headers = identity(value["topic"], moment, digest_of=repr(number).encode())
        yield ProducerRecord("readings", json.dumps(value).encode(), device.encode(), headers)


def planned(folder, server, database):
    sink = {
        "name": "mongo",
        "connector.class": "mongo",
        "topics": "readings",
        "value.converter": "json",
        "connection.uri": server.uri,
        "database": database.name,
        "collection": "readings",
        "rollups": "true",
        "max.poll.records": "50",
    }
    return {"data.dir": str(folder), "offset.flush.interval.ms": "20"}, sink


def fill(settings, numbers=range(COUNT)):
    with closing(open_broker(check_plan("test", settings, []))) as broker:
        if "readings" not in broker.topics():
            broker.create_topic("readings", partitions=2)
        producer = broker.producer("test", {})
        producer.send(Unit(list(readings(numbers))))
        while not producer.poll(1.0):
            pass
        producer.close(5.0)


def rollups(database):
    stored = {document["_id"]: document for document in database["readings.rollup"].find()}
    points = {document["_id"]: document.get("oldest") for document in database["readings.points"].find()}
    return stored, points


def assert_rollups_equal_documents(database):
    found = rollups(database)
    build(database.readings, rebuild=True, report=lambda _: None)
    assert found == rollups(database)
    assert len(found[0]) > 20


POINTS = [
    CrashPoint(Step.PUT, "before", 3),
    CrashPoint(Step.PUT, "after", 3),
    CrashPoint(Step.FLUSH, "before", 2),
    CrashPoint(Step.FLUSH, "after", 2),
    CrashPoint(Step.COMMIT, "before", 2),
    CrashPoint(Step.COMMIT, "after", 2),
]


@pytest.mark.parametrize("point", POINTS, ids=str)
def test_after_a_crash_at_any_step_the_rollups_equal_the_documents(tmp_path, server, database, point):
    settings, sink = planned(tmp_path / "one", server, database)
    fill(settings)
    one = check_plan("test", settings, [("mongo", sink)])
    two = check_plan("test", settings | {"data.dir": str(tmp_path / "two")}, [("mongo", sink)])

    with Life(one, open_broker(one), point) as first:
        assert first.run(until=lambda: False)
        first.leave(tmp_path / "two")
        with Life(two, open_broker(two)) as second:
            assert not second.run(until=lambda: second.ledger()["mongo"]["lag"] == 0)

    assert database.readings.count_documents({}) == COUNT
    assert_rollups_equal_documents(database)


def test_after_kill_9_at_random_moments_the_rollups_equal_the_documents(tmp_path, server, database):
    settings, sink = planned(tmp_path / "data", server, database)
    fill(settings)
    chance = random.Random(16)
    kills = 0
    with WorkerProcess(tmp_path, settings, [sink]) as worker:
        while kills < 5 and database.readings.estimated_document_count() < COUNT:
            worker.wait_for_ledger(lambda ledger: ledger["mongo"]["received"] > 0)
            time.sleep(chance.uniform(0, 0.3))  # the moment of the kill
            worker.kill()
            kills += 1
            if kills < 5:
                worker.start()
        if worker.running:
            worker.kill()
        fill(settings, range(COUNT, COUNT + 20))  # so that the last life is known to have read everything
        worker.start()
        worker.wait_for_ledger(lambda ledger: ledger["mongo"]["received"] > 0 and ledger["mongo"]["lag"] == 0)
        assert worker.stop() == 0

    assert kills > 1
    assert database.readings.count_documents({}) == COUNT + 20
    assert_rollups_equal_documents(database)
