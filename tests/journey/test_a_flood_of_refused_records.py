"""Two thousand records that are no command in front of one: through a whole worker, on both backends."""

import time

import pytest

from tieline.broker.records import ProducerRecord, Unit
from tieline.testing.worker_process import WorkerProcess
from tieline_connectors.volttron_bus.testing.fake_router import FakeRouter

POLICY = "{version: 1, rules: []}"
TOTAL = 2000


def produce(broker, topic, number):
    producer = broker.producer("flood", {})
    producer.send(Unit([ProducerRecord(topic, b"{", partition=0)] * number))
    delivered = 0
    while delivered < number:
        delivered += sum(len(delivery.metadata) for delivery in producer.poll(1.0))
    producer.close(5.0)


@pytest.fixture
def worker(backend, tmp_path):
    (tmp_path / "policy.yaml").write_text(POLICY)
    topic = f"commands-{backend.suffix}"
    broker = backend.open()
    broker.create_topic(topic, partitions=1)
    broker.create_topic(f"results-{backend.suffix}", partitions=1)
    produce(broker, topic, TOTAL)
    broker.close()
    with FakeRouter() as bus:
        connector = {
            "name": f"commands-{backend.suffix}",
            "connector.class": "command",
            "topics": topic,
            "volttron.address": bus.address,
            "platform.name": "lab",
            "policy.file": str(tmp_path / "policy.yaml"),
            "audit.file": str(tmp_path / "audit.log"),
            "results.topic": f"results-{backend.suffix}",
            "value.converter": "json",
            "value.converter.schemas.enable": "false",
        }
        yield WorkerProcess(
            tmp_path / "worker", {**backend.worker, "data.dir": str(backend.data)}, [connector]
        )


def test_a_flood_of_invalid_commands_is_answered_within_seconds(worker, backend):
    with worker:
        worker.wait_for("partitions assigned", timeout=60)
        began = time.monotonic()
        worker.wait_for_ledger(lambda ledger: ledger[f"commands-{backend.suffix}"]["delivered"] == TOTAL)
        assert time.monotonic() - began < 15, "it was half a minute, a transaction each"
        assert worker.stop() == 0


def test_a_stop_in_the_middle_of_a_flood_is_clean_and_in_time(worker, backend):
    with worker:
        worker.wait_for("partitions assigned", timeout=60)
        assert worker.stop() == 0
