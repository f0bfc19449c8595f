"""Records as a volttron_bus source makes them, sinks that are let go, a database of the test's own."""

import uuid
from types import SimpleNamespace
from typing import Any

import pytest
from pymongo import MongoClient

from tieline.api import Schema, SinkRecord, identity
from tieline.testing.sink_context import RecordingSinkContext
from tieline_connectors.mongo.config import MongoSinkConfig
from tieline_connectors.mongo.sink import MongoSinkTask

START = 1_767_225_600_000_000  # 2026-01-01, in microseconds
READING = Schema.named("volttron.DeviceReading")


def make_reading(number, *, device="campus/b1/ahu1", topic="volttron.devices", headers=None, **changes):
    """The ``number``-th reading of a device, a second after the one before it."""
    time = START + number * 1_000_000 + 123
    value = {
        "platform": "lab",
        "topic": f"devices/{device}/all",
        "device": device,
        "kind": "ALL",
        "sender": "platform.driver",
        "headers": {"TimeStamp": "2026-01-01T00:00:00.000123+00:00"},
        "time": time,
        "time_source": "TIMESTAMP",
        "received": time + 5_000,
        "points": {"temp": 20.5 + number, "fan": True, "mode": "auto", "count": number, "none": None},
        "metadata": {"temp": {"units": "C", "type": "float", "tz": "UTC"}},
        **changes,
    }
    own = identity(value["topic"], time, digest_of=repr(value["points"]).encode())
    return SinkRecord(topic, 0, number, value, device, headers or own, time // 1000, value_schema=READING)


@pytest.fixture
def reading():
    """Makes a reading."""
    return make_reading


@pytest.fixture
def database(mongo_uri):
    """A database of this test's own."""
    with MongoClient[dict[str, Any]](mongo_uri, tz_aware=True) as client:
        name = f"tieline_test_{uuid.uuid4().hex[:12]}"
        yield client[name]
        client.drop_database(name)


@pytest.fixture
def start_sink():
    """Starts a sink: ``.task``, ``.context``."""
    tasks = []

    def start(uri, database, **settings):
        task, context = MongoSinkTask(), RecordingSinkContext()
        tasks.append(task)
        given = {"collection": "readings", **{k.replace("__", "."): v for k, v in settings.items()}}
        config = MongoSinkConfig.parse({"connection.uri": uri, "database": database, **given})
        task.start(context, config)
        return SimpleNamespace(task=task, context=context, put=task.put, counters=context.counters)

    yield start
    for task in tasks:
        task.shutdown()


@pytest.fixture
def sink(start_sink, mongo_uri, database):
    """Starts a sink into the test's database, with these settings beside (``__`` for a dot)."""

    def start(**settings):
        return start_sink(mongo_uri, database.name, **settings)

    return start
