"""What the journeys share: a worker's settings for either backend of the broker interface."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import NamedTuple

import pytest

from tieline.broker.port import Broker
from tieline.config.plan import check_plan
from tieline.runtime.worker.factory import open_broker


class Backend(NamedTuple):
    """A backend: the worker's settings for it, and a suffix for topics and groups of this test."""

    name: str
    worker: dict[str, str]
    suffix: str
    data: Path

    def open(self) -> Broker:
        """Open the broker as a worker does, to read from it once the worker has ended."""
        patient = {"task.shutdown.graceful.timeout.ms": "120000"}  # a call may take a quarter of this
        return open_broker(check_plan("test", {**self.worker, **patient, "data.dir": str(self.data)}, []))


@pytest.fixture(params=["local", pytest.param("kafka", marks=pytest.mark.kafka)])
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Backend:
    """Run each journey on the local log and on a real Kafka."""
    suffix = uuid.uuid4().hex[:8]
    worker = {}
    if request.param == "kafka":
        worker = {
            "bootstrap.servers": request.getfixturevalue("kafka_bootstrap"),
            "offset.storage.topic": f"offsets-{suffix}",
            "offset.storage.partitions": "1",
        }
    return Backend(request.param, worker, suffix, tmp_path / "data")
