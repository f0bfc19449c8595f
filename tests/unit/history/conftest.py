"""History tasks in a temporary folder, and readings for them."""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tieline.api import SinkRecord, identity
from tieline.testing.sink_context import RecordingSinkContext
from tieline_connectors.history.config import HistorySinkConfig
from tieline_connectors.history.database import FILE_NAME
from tieline_connectors.history.sink import HistorySinkTask
from tieline_connectors.history.store import HistoryStore

SECOND = 1_000_000
START = 1_767_225_600 * SECOND  # 2026-01-01


@pytest.fixture
def tmp_path():
    """A folder in memory if there is one: these tests wait for no disk."""
    with TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as folder:
        yield Path(folder)


@pytest.fixture
def new_task(tmp_path):
    """Starts tasks on ``tmp_path``; ``_`` in the names of settings are dots."""
    tasks = []

    def new_task(start=True, **settings):
        properties = {"retention.ms": "-1"} | {
            name.replace("_", "."): value for name, value in settings.items()
        }
        context = RecordingSinkContext(data_dir=tmp_path)
        tasks.append(HistorySinkTask(context, HistorySinkConfig.parse(properties)))
        if start:
            tasks[-1].start()
        return tasks[-1]

    yield new_task
    for task in tasks:
        task.stop()


@pytest.fixture
def path(tmp_path):
    return tmp_path / FILE_NAME


@pytest.fixture
def new_store(path):
    stores = []

    def new_store(**options):
        stores.append(HistoryStore(path, **options))
        return stores[-1]

    yield new_store
    for store in stores:
        store.close()


@pytest.fixture
def reading():
    """Makes a record of a device's points at a second."""

    def reading(second, points=None, device="campus/ahu1", received=None, **fields):
        time = START + int(second * SECOND)
        value = {
            "platform": "p",
            "topic": f"devices/{device}/all",
            "device": device,
            "kind": "ALL",
            "sender": "driver",
            "headers": {},
            "time": time,
            "time_source": "TIMESTAMP",
            "received": time + 5000 if received is None else START + int(received * SECOND),
            "points": {"temp": float(second)} if points is None else points,
            "metadata": {"temp": {"units": "C", "type": None, "tz": None}},
        } | fields
        headers = identity(device, repr(value), digest_of=repr(value).encode())
        return SinkRecord("t", 0, int(second), value, headers=headers)

    return reading
