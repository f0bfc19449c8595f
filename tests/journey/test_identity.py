"""What makes two messages one record, on the whole way from the bus to MongoDB; counted exactly."""

import collections
from typing import Any

import pymongo
import pytest

from tieline.testing.worker_process import WorkerProcess
from tieline_connectors.volttron_bus.testing.fake_router import FakeRouter

BODY = [{"temp": 20.5}, {"temp": {"units": "C"}}]
TOPIC = "devices/campus/b/d/all"


@pytest.fixture
def collection(mongo_uri, backend):
    """A collection of the test's own."""
    client: pymongo.MongoClient[dict[str, Any]]
    with pymongo.MongoClient(mongo_uri) as client:
        yield client[f"t_{backend.suffix}"]["c"]
        client.drop_database(f"t_{backend.suffix}")


def bus_source(backend, bus, name="bus"):
    return {
        "name": f"{name}-{backend.suffix}",
        "connector.class": "volttron_bus",
        "volttron.address": bus.address,
        "platform.name": "lab",
        "topic": f"bus-{backend.suffix}",
    }


def worker(backend, folder, mongo_uri, *sources):
    mongo = {
        "name": f"mongo-{backend.suffix}",
        "connector.class": "mongo",
        "topics": f"bus-{backend.suffix}",
        "connection.uri": mongo_uri,
        "database": f"t_{backend.suffix}",
        "collection": "c",
        "layout": "cloudagent",
        "consumer.override.group.instance.id": f"mongo-{backend.suffix}",
    }
    return WorkerProcess(folder, backend.worker, [*sources, mongo])


def handled(backend, records):
    """The sink has had so many records, and nothing is on its way."""
    sink = f"mongo-{backend.suffix}"
    return lambda ledger: (
        ledger[sink]["delivered"] >= records
        and ledger[sink]["in_flight"] == 0
        and all(stage.get("spool_records", 0) == 0 for stage in ledger.values() if isinstance(stage, dict))
    )


def timed(number):
    return {"TimeStamp": f"2026-03-01T00:00:00.{number:06d}+00:00"}


def test_an_equal_body_twice_is_two_documents_with_and_without_a_time(
    backend, tmp_path, mongo_uri, collection
):
    with FakeRouter() as bus, worker(backend, tmp_path, mongo_uri, bus_source(backend, bus)) as running:
        running.wait_for("subscribed")
        untimed: dict[str, str] = {}
        for headers in (untimed, untimed, timed(1), timed(1), timed(2)):
            bus.publish(TOPIC, headers, BODY)
        ledger = running.wait_for_ledger(handled(backend, 5))
        assert running.stop() == 0

    counts = collections.Counter(d["headers"].get("TimeStamp") for d in collection.find())
    assert counts == {None: 2, timed(1)["TimeStamp"]: 2, timed(2)["TimeStamp"]: 1}
    assert ledger[f"mongo-{backend.suffix}"]["counters"].get("duplicates", 0) == 0


def test_two_redundant_sources_on_one_platform_give_one_document_a_message(
    backend, tmp_path, mongo_uri, collection
):
    with FakeRouter() as bus:
        sources = [bus_source(backend, bus, name) for name in ("bus-a", "bus-b")]
        with worker(backend, tmp_path, mongo_uri, *sources) as running:
            running.wait_for("subscribed", count=2)
            for number in range(300):
                bus.publish(f"devices/campus/b/d{number % 7}/all", timed(number), BODY)
            ledger = running.wait_for_ledger(handled(backend, 600))
            assert running.stop() == 0

    assert {ledger[source["name"]]["counters"]["spooled"] for source in sources} == {300}
    times = collections.Counter(d["headers"]["TimeStamp"] for d in collection.find())
    assert times == {timed(number)["TimeStamp"]: 1 for number in range(300)}
    assert ledger[f"mongo-{backend.suffix}"]["counters"]["duplicates"] == 300


ON, OFF = [True, {"units": "bit"}], [False, {"units": "bit"}]


def test_on_off_on_under_one_time_stamp_are_three_documents_also_through_redundant_sources(
    backend, tmp_path, mongo_uri, collection
):
    """And five equal alarms are five, also where the worker is killed between them."""
    topic, alarm = "devices/campus/b/d/fan", "devices/campus/b/d/alarm"
    sources_of = lambda bus: [bus_source(backend, bus, name) for name in ("bus-a", "bus-b")]  # noqa: E731
    with FakeRouter() as bus:
        with worker(backend, tmp_path, mongo_uri, *sources_of(bus)) as running:
            running.wait_for("subscribed", count=2)
            for body in (ON, OFF, ON):
                bus.publish(topic, timed(1), body)
            for _ in range(3):
                bus.publish(alarm, timed(2), ON)
            running.wait_for_ledger(handled(backend, 12))
            running.kill()
        with worker(backend, tmp_path, mongo_uri, *sources_of(bus)) as running:
            running.wait_for("subscribed", count=2)
            for _ in range(2):
                bus.publish(alarm, timed(2), ON)
            running.wait_for_ledger(handled(backend, 4))
            assert running.stop() == 0
    counts = collections.Counter(
        (document["topic"], document["message"][0]) for document in collection.find()
    )
    assert counts == {(topic, True): 2, (topic, False): 1, (alarm, True): 5}


@pytest.mark.parametrize("lost", ["spool", "topic"])
def test_records_after_a_spool_or_topic_was_recreated_are_not_duplicates_of_earlier_ones(
    backend, tmp_path, mongo_uri, collection, lost
):
    """Without a time, only the spool tells two messages apart: a new one may not count as the old did."""
    with FakeRouter() as bus:
        running = worker(backend, tmp_path, mongo_uri, bus_source(backend, bus))
        for run in range(2):
            with running:
                running.wait_for("subscribed")
                for _ in range(20):
                    bus.publish(TOPIC, {}, BODY)
                running.wait_for_ledger(handled(backend, 20))
                assert running.stop() == 0
            assert collection.count_documents({}) == 20 * (run + 1)
            if run == 0:
                recreate(backend, lost)
    ids = [document["_id"] for document in collection.find({}, {"_id": 1})]
    assert len(set(ids)) == 40


def recreate(backend, lost):
    if lost == "spool":
        files = list((backend.data / "spools").glob("*"))
        assert files
        for file in files:
            file.unlink()
        return
    broker: Any = backend.open()
    try:
        assert broker.delete_topic(f"bus-{backend.suffix}")
    finally:
        broker.close()
