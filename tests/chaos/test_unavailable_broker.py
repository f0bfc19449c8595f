"""A worker whose Kafka is unavailable waits, reports it, and stops in time."""

import socket
import time

import pytest

from tieline.testing.worker_process import WorkerProcess

GRACEFUL = 3.0


@pytest.fixture
def unused_address():
    """An address on which no server listens; it is reserved, so that none can."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{taken.getsockname()[1]}"


def test_without_kafka_a_worker_waits_and_stops_in_time(tmp_path, unused_address):
    (tmp_path / "in.txt").write_text("one\n")
    connectors = [
        {"name": "in", "connector.class": "file", "file": str(tmp_path / "in.txt"), "topic": "t"},
        {"name": "out", "connector.class": "file", "file": str(tmp_path / "out.txt"), "topics": "t"},
    ]
    settings = {
        "bootstrap.servers": unused_address,
        "task.shutdown.graceful.timeout.ms": str(int(GRACEFUL * 1000)),
    }
    with WorkerProcess(tmp_path, settings, connectors) as worker:
        worker.wait_for("started")
        stop_began = time.monotonic()
        assert worker.stop() == 0
        assert time.monotonic() - stop_began < GRACEFUL + 0.5
    assert all(part["state"] == "STOPPED" for part in worker.last_ledger.values())
