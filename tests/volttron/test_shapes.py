"""Every shape in which real drivers publish, as records and as documents."""

from __future__ import annotations

import collections
import itertools
import json
import time
import uuid
from dataclasses import dataclass
from typing import Any

import pymongo
import pytest

from tieline.api import SourceRecord
from tieline.testing.source_context import RecordingSourceContext
from tieline.testing.worker_process import WorkerProcess
from tieline_connectors.volttron_bus.messages.readings import rebuild
from tieline_connectors.volttron_bus.source import VolttronBusTask
from tieline_connectors.volttron_bus.source_config import VolttronBusConfig
from tieline_lab.driver import POINTS, DriverSettings
from tieline_lab.volttron import VolttronPlatform, why_not

pytestmark = pytest.mark.volttron

OWN_INTERVAL = "DamperPosition"


@dataclass(frozen=True)
class OnePointSlower(DriverSettings):
    """One point is polled every third second, by a row of the registry: 2.x alone can do that."""

    def store(self, write_log):
        store = super().store(write_log)
        registry = json.loads(store["points"]["data"])
        (row,) = [row for row in registry if row["Point Name"] == OWN_INTERVAL]
        row["interval"] = 3 * self.interval
        store["points"]["data"] = json.dumps(registry)
        return store


def platform(factory, generation, settings):
    if reason := why_not():
        pytest.skip(reason)
    with VolttronPlatform(factory.mktemp("shapes"), generation, settings) as started:
        yield started


@pytest.fixture(scope="module")
def depth(tmp_path_factory):
    """2.x with every shape that it can publish at once; of a device both orders of ``multi``."""
    settings = OnePointSlower(devices=2, shapes=("all", "multi", "point", "breadth_multi", "breadth_point"))
    yield from platform(tmp_path_factory, "2", settings)


@pytest.fixture(scope="module")
def breadth(tmp_path_factory):
    """2.x with the one shape that excludes ``all``."""
    yield from platform(tmp_path_factory, "2", DriverSettings(devices=2, shapes=("breadth_all",)))


@pytest.fixture(scope="module")
def older(tmp_path_factory):
    """10.x with all of its shapes."""
    settings = DriverSettings(devices=2, shapes=("all", "point", "breadth_all", "breadth_point"))
    yield from platform(tmp_path_factory, "10", settings)


def settings_of(platform, **settings):
    keys = platform.keys("tieline")
    return {
        "volttron.address": platform.address,
        "volttron.identity": "tieline",
        "volttron.secretkey": keys["secretkey"],
        "volttron.serverkey": keys["serverkey"],
        "platform.name": "lab",
    } | settings


def read(platform, seconds, **settings):
    """The records of so many seconds, and what an independent observer saw, from before till after them."""
    context = RecordingSourceContext()
    records: list[SourceRecord] = []
    received: list[str] = []
    config = settings_of(platform, **{"bus.prefixes": "devices, points"}) | settings
    task = VolttronBusTask(context, VolttronBusConfig.parse(config))
    with platform.connect("observer") as observer:
        observer.subscribe("devices/")
        observer.subscribe("points/")
        task.start()
        try:
            while not records:
                records += task.poll(10_000, 1.0)
            end = time.monotonic() + seconds
            while (remaining := end - time.monotonic()) > 0:
                records += task.poll(10_000, min(remaining, 0.2))
        finally:
            task.interrupt()
            task.stop()
        last = as_text(*rebuild(records[-1].value))
        while not received or received[-1] != last:
            message = observer.receive(10)
            assert message is not None
            received.append(as_text(message.topic, message.headers, message.message, message.sender))
    return records, received, context


def as_text(topic, headers, body, sender):
    return json.dumps([topic, headers, body, sender])


def devices(platform):
    return set(platform.settings.topics())


def check_exact(records, received, context):
    rebuilt = [as_text(*rebuild(record.value)) for record in records]
    assert rebuilt == received[-len(rebuilt) :], "none is missing, none is twice, in the order of the bus"
    assert context.counters == {}
    assert {record.value_schema.name for record in records} == {"volttron.DeviceReading"}
    assert all(record.key == record.value["device"] for record in records)


def shapes(records):
    return {(record.value["topic"].partition("/")[0], record.value["kind"]) for record in records}


def test_every_shape_of_2x_at_once_is_told_apart_and_names_the_same_devices(depth):
    records, received, context = read(depth, 4)

    check_exact(records, received, context)
    assert shapes(records) == {
        ("devices", "ALL"),
        ("devices", "MULTI"),
        ("devices", "POINT"),
        ("points", "MULTI"),
        ("points", "POINT"),
    }
    for shape in shapes(records):
        of_shape = [record for record in records if shapes([record]) == {shape}]
        assert {record.key for record in of_shape} == devices(depth)
        named = {name for record in of_shape for name in record.value["points"]}
        assert named == {point.name for point in POINTS}


def test_a_point_polled_at_its_own_interval_comes_as_multi_and_point_when_it_is_polled(depth):
    records, _, _ = read(depth, 8)

    device = depth.settings.topics()[0]
    for kind in ("MULTI", "POINT"):
        polls = {
            name: {
                r.value["time"]
                for r in records
                if r.key == device and r.value["kind"] == kind and name in r.value["points"]
            }
            for name in (OWN_INTERVAL, "Reading")
        }
        slow = sorted(polls[OWN_INTERVAL])
        assert len(slow) >= 2
        between = [when for when in polls["Reading"] if slow[0] < when < slow[-1]]
        assert len(between) >= len(slow), "the other points are polled oftener"
        assert all(later - earlier > 2_000_000 for earlier, later in itertools.pairwise(slow))


def test_breadth_first_all_of_2x_gives_the_path_of_the_device(breadth):
    records, received, context = read(breadth, 3)

    check_exact(records, received, context)
    assert shapes(records) == {("points", "ALL")}
    assert {record.key for record in records} == devices(breadth)
    topics = {record.value["topic"] for record in records}
    assert topics == {"/".join(["points", *reversed(d.split("/")), "all"]) for d in devices(breadth)}


def test_10x_publishing_both_ways_under_devices_is_told_apart_where_it_can_be(older):
    records, received, context = read(older, 4, **{"topic.order": "devices=both"})

    check_exact(records, received, context)
    many = [record for record in records if record.value["kind"] == "ALL"]
    assert {record.key for record in many} == devices(older)
    fronts = {record.value["topic"].split("/")[1] for record in many}
    assert fronts == {"all", "campus"}
    # a point in front looks like a campus: documented
    others = [record for record in records if record.value["kind"] != "ALL"]
    assert {record.value["kind"] for record in others} == {"POINT"}
    assert {record.key for record in others} > devices(older)


def test_10x_read_as_breadth_first_names_its_devices_and_points(older):
    records, received, context = read(older, 4, **{"topic.order": "devices=breadth"})

    check_exact(records, received, context)
    reversed_ones = [r for r in records if not r.value["topic"].startswith("devices/campus/")]
    assert {r.key for r in reversed_ones} == devices(older)
    assert {r.value["kind"] for r in reversed_ones} == {"ALL", "POINT"}
    single = {name for r in reversed_ones if r.value["kind"] == "POINT" for name in r.value["points"]}
    assert single == {point.name for point in POINTS}


def test_every_shape_that_an_observer_saw_is_in_mongodb_once(depth, tmp_path, mongo_uri):
    suffix = uuid.uuid4().hex[:8]
    bus = settings_of(depth) | {
        "name": f"bus-{suffix}", "connector.class": "volttron_bus", "topic": f"bus-{suffix}",
        "bus.prefixes": "devices, points",
    }  # fmt: skip
    mongo = {
        "name": f"mongo-{suffix}", "connector.class": "mongo", "topics": f"bus-{suffix}",
        "connection.uri": mongo_uri, "database": f"t_{suffix}", "collection": "c", "layout": "cloudagent",
    }  # fmt: skip

    def as_key(topic, headers, body):
        return topic, headers["TimeStamp"], json.dumps(body, sort_keys=True)

    received: collections.Counter[tuple[str, str, str]] = collections.Counter()
    with WorkerProcess(tmp_path, {}, [bus, mongo]) as worker:
        worker.wait_for("subscribed")
        with depth.connect("observer") as observer:
            observer.subscribe("devices/campus")
            observer.subscribe("points/")
            while len({topic for topic, _, _ in received}) < 2 * (3 + 2 * len(POINTS)):
                message = observer.receive(10)
                assert message is not None, "the driver publishes nothing"
                received[as_key(message.topic, message.headers, message.message)] += 1
        client: pymongo.MongoClient[dict[str, Any]]
        with pymongo.MongoClient(mongo_uri) as client:
            collection: Any = client[f"t_{suffix}"]["c"]

            def stored():
                documents = collection.find({}, {"topic": 1, "headers": 1, "message": 1})
                return collections.Counter(as_key(d["topic"], d["headers"], d["message"]) for d in documents)

            worker.wait_for_ledger(lambda ledger: stored().keys() >= received.keys())
            assert worker.stop() == 0
            assert set(stored().values()) == {1}
            client.drop_database(f"t_{suffix}")
