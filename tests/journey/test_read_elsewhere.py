"""The examples that read our topics with others' clients, on a real Kafka and a worker's registry."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tieline.testing.worker_process import WorkerProcess
from tieline_connectors.volttron_bus.testing.fake_router import FakeRouter

EXAMPLES = Path(__file__).parents[2] / "examples" / "read_elsewhere"
COUNT = 50


@pytest.fixture(scope="module")
def topic(kafka_bootstrap, tmp_path_factory):
    """Brokers, registry, topic: fifty readings of a worker that continues to serve its schemas."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    settings = {
        "bootstrap.servers": kafka_bootstrap,
        "offset.storage.topic": "elsewhere-offsets",
        "schema.registry.url": "embedded",
        "schema.registry.listen": f"127.0.0.1:{port}",
    }
    with FakeRouter() as bus:
        source = {
            "name": "bus",
            "connector.class": "volttron_bus",
            "volttron.address": bus.address,
            "volttron.identity": "elsewhere",
            "platform.name": "lab",
            "topic": "elsewhere",
            "bus.prefixes": "devices",
        }
        with WorkerProcess(tmp_path_factory.mktemp("elsewhere"), settings, [source]) as worker:
            bus.wait_for_subscriber("elsewhere")
            for n in range(COUNT):
                body = [{"temperature": n + 0.5, "count": n, "on": True, "name": "é"}, {}]
                bus.publish("devices/campus/b1/ahu1/all", {"TimeStamp": "2026-01-02T03:04:05+00:00"}, body)
            worker.wait_for_ledger(lambda ledger: ledger["bus"]["delivered"] == COUNT)
            yield [kafka_bootstrap, f"http://127.0.0.1:{port}", "elsewhere", str(COUNT)]


def lines(*command, folder=EXAMPLES):
    ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr[-2000:]
    return [json.loads(line) for line in ended.stdout.splitlines()]


def test_python_reads_every_reading_with_confluents_deserializer(topic):
    readings = lines(sys.executable, "read.py", *topic)
    assert [reading["points"]["count"] for reading in readings] == list(range(COUNT))
    assert readings[3]["points"] == {"temperature": 3.5, "count": 3, "on": True, "name": "é"}
    assert {reading["device"] for reading in readings} == {"campus/b1/ahu1"}


def test_javascript_reads_every_reading(topic, tmp_path):
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("node and npm are not installed")
    for name in ("package.json", "read.mjs"):
        shutil.copy(EXAMPLES / name, tmp_path)
    quiet = ["--no-package-lock", "--no-audit", "--no-fund", "--ignore-scripts", "--silent"]
    subprocess.run([npm, "install", *quiet], cwd=tmp_path, check=True, timeout=240)
    readings = lines(node, "read.mjs", *topic, folder=tmp_path)
    assert len(readings) == COUNT
    assert [reading["device"] for reading in readings] == ["campus/b1/ahu1"] * COUNT
    assert [reading["points"]["count"] for reading in readings] == [{"long": n} for n in range(COUNT)]
    values = {"temperature": {"double": 3.5}, "count": {"long": 3}, "on": {"boolean": True}}
    assert readings[3]["points"] == {**values, "name": {"string": "é"}}  # avsc's form of a union
