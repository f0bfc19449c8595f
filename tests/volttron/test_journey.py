"""A real VOLTTRON platform, its driver, and what an independent observer of its bus saw, in MongoDB."""

import collections
import json
import uuid
from typing import Any

import pymongo
import pytest

from tieline.testing.worker_process import WorkerProcess


def as_seen(message):
    return message.topic, message.headers["TimeStamp"], json.dumps(message.message, sort_keys=True)


def as_stored(document):
    return (
        document["topic"],
        document["headers"]["TimeStamp"],
        json.dumps(document["message"], sort_keys=True),
    )


@pytest.mark.parametrize(
    ("generation", "broker"),
    [("2", "local"), pytest.param("2", "kafka", marks=pytest.mark.kafka), ("10", "local")],
)
@pytest.mark.volttron
def test_all_that_an_observer_saw_on_a_real_bus_is_in_mongodb_once(
    request, tmp_path, mongo_uri, generation, broker
):
    platform = request.getfixturevalue("volttron_platform" if generation == "2" else "volttron10_platform")
    suffix = uuid.uuid4().hex[:8]
    keys = platform.keys("tieline")
    home = {"bootstrap.servers": request.getfixturevalue("kafka_bootstrap")} if broker == "kafka" else {}
    bus = {
        "name": f"bus-{suffix}", "connector.class": "volttron_bus", "topic": f"bus-{suffix}",
        "volttron.address": platform.address, "volttron.identity": "tieline", "platform.name": "lab",
        "volttron.secretkey": keys["secretkey"], "volttron.serverkey": keys["serverkey"],
    }  # fmt: skip
    mongo = {
        "name": f"mongo-{suffix}", "connector.class": "mongo", "topics": f"bus-{suffix}",
        "connection.uri": mongo_uri, "database": f"t_{suffix}", "collection": "c", "layout": "cloudagent",
    }  # fmt: skip
    received: collections.Counter[tuple[str, str, str]] = collections.Counter()
    with WorkerProcess(tmp_path, home, [bus, mongo]) as worker:
        worker.wait_for("subscribed")
        with platform.connect("observer") as observer:
            observer.subscribe("devices/campus")
            while len(received) < 12:
                message = observer.receive(10)
                assert message is not None, "the driver publishes nothing"
                received[as_seen(message)] += 1
        client: pymongo.MongoClient[dict[str, Any]]
        with pymongo.MongoClient(mongo_uri) as client:
            collection: Any = client[f"t_{suffix}"]["c"]

            def arrived(ledger):
                return (
                    collections.Counter(
                        map(as_stored, collection.find({"topic": {"$regex": "^devices/campus"}}))
                    )
                    >= received
                )

            ledger = worker.wait_for_ledger(arrived)
            assert worker.stop() == 0
            stored = collections.Counter(
                map(as_stored, collection.find({"topic": {"$regex": "^devices/campus"}}))
            )
    assert {key: stored[key] for key in received} == dict(received)
    assert set(stored.values()) == {1}
    assert not [
        name for name in ledger[f"bus-{suffix}"]["counters"] if name.startswith(("dropped", "quarant"))
    ]
    log = (tmp_path / "worker.log").read_text()
    assert keys["secretkey"] not in log
