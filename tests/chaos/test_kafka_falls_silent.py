"""Kafka stops answering under load, connections open: a worker stops in time and loses nothing."""

import os
import signal
import time

import pytest

from tieline.testing.worker_process import WorkerProcess
from tieline_lab import kafka

pytestmark = pytest.mark.kafka
TOTAL = 60_000


@pytest.fixture
def server(tmp_path):
    if reason := kafka.why_not():
        pytest.skip(reason)
    with kafka.KafkaServer(tmp_path / "kafka") as server:
        yield server


def written(folder):
    text = (folder / "out.txt").read_text()
    return [int(line.split()[0]) for line in text.splitlines()]


def test_sigterm_while_kafka_is_silent_ends_in_time_and_the_next_start_resumes(server, tmp_path):
    (tmp_path / "in.txt").write_text("".join(f"{n} {'x' * 200}\n" for n in range(TOTAL)))
    worker = WorkerProcess(
        tmp_path,
        {"bootstrap.servers": server.bootstrap, "task.shutdown.graceful.timeout.ms": "5000"},
        [
            {"name": "in", "connector.class": "file", "file": str(tmp_path / "in.txt"), "topic": "t"},
            {
                "name": "out",
                "connector.class": "file",
                "file": str(tmp_path / "out.txt"),
                "topics": "t",
                "consumer.override.group.instance.id": "out",
            },
        ],
    )
    worker.start()
    worker.wait_for_ledger(lambda ledger: ledger["out"]["received"] > 5000)
    os.kill(server.process.pid, signal.SIGSTOP)
    try:
        worker.wait_for_ledger(lambda ledger: "retries" in ledger["out"]["counters"])  # a commit waits
        stop_began = time.monotonic()
        assert worker.stop() == 0
        under_load = time.monotonic() - stop_began
        worker.start()
        worker.wait_for("started")
        stop_began = time.monotonic()
        assert worker.stop() == 0
        starting = time.monotonic() - stop_began
        print(f"stopped in {under_load:.1f} s under load, in {starting:.1f} s while starting")
        assert under_load < 5.5
    finally:
        os.kill(server.process.pid, signal.SIGCONT)
    with worker:
        worker.wait_for_ledger(
            lambda ledger: (
                ledger["in"]["in_flight"] == 0
                and ledger["out"]["lag"] == 0
                and written(tmp_path)[-1:] == [TOTAL - 1]
            ),
            timeout=60,
        )
    assert set(written(tmp_path)) == set(range(TOTAL))
