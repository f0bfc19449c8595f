"""What the journeys share: a worker's settings for either home of the broker."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import NamedTuple

import pytest

from tieline.broker.port import Broker
from tieline.config.plan import check_plan
from tieline.runtime.worker.factory import open_broker


class Home(NamedTuple):
    """The worker's settings, and a name that makes topics and groups this test's own."""

    name: str
    worker: dict[str, str]
    own: str
    data: Path

    def open(self) -> Broker:
        """The broker, as a worker sees it; for looking at what it holds once the worker has ended."""
        patient = {"task.shutdown.graceful.timeout.ms": "120000"}  # no call waits for more than a quarter
        return open_broker(check_plan("test", {**self.worker, **patient, "data.dir": str(self.data)}, []))


@pytest.fixture(params=["local", pytest.param("kafka", marks=pytest.mark.kafka)])
def home(request: pytest.FixtureRequest, tmp_path: Path) -> Home:
    """Each journey is made on the local log, and on a real Kafka."""
    own = uuid.uuid4().hex[:8]
    worker = {}
    if request.param == "kafka":
        worker = {
            "bootstrap.servers": request.getfixturevalue("kafka_bootstrap"),
            "offset.storage.topic": f"offsets-{own}",
            "offset.storage.partitions": "1",
        }
    return Home(request.param, worker, own, tmp_path / "data")
