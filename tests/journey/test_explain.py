"""``tieline explain`` beside a worker, and after its end, on both backends."""

import json
import subprocess
import sys
from typing import Any

from tieline.testing.worker_process import WorkerProcess


def explain(worker: WorkerProcess, connector: str, *options: str) -> subprocess.CompletedProcess[str]:
    file = worker.folder / "worker.json"
    command = [
        sys.executable,
        "-m",
        "tieline.cli.main",
        "explain",
        connector,
        "--worker",
        str(file),
        *options,
    ]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def findings(worker: WorkerProcess, connector: str) -> list[dict[str, Any]]:
    answer = explain(worker, connector, "--json")
    assert answer.returncode == 0, answer.stderr
    report = json.loads(answer.stdout)
    assert report["connector"] == connector
    return list(report["findings"])


def kinds(worker: WorkerProcess, connector: str) -> list[str]:
    return [finding["kind"] for finding in findings(worker, connector)]


def test_each_connector_of_a_worker_is_explained(backend, tmp_path):
    source = tmp_path / "in.txt"
    source.write_text("".join(f"{n}\n" for n in range(40)))
    topic, sink, nowhere = (f"{name}-{backend.suffix}" for name in ("lines", "out", "nowhere"))
    connectors = [
        {"name": "lines", "connector.class": "file", "file": str(source), "topic": topic},
        {"name": sink, "connector.class": "file", "file": str(tmp_path / "out.txt"), "topics": topic},
        {"name": "lost", "connector.class": "file", "file": str(tmp_path / "lost.txt"), "topics": nowhere},
        {
            "name": "bus",
            "connector.class": "volttron_bus",
            "platform.name": "p",
            "volttron.address": "tcp://127.0.0.1:1",
        },
    ]
    with WorkerProcess(tmp_path / "worker", backend.worker, connectors) as worker:
        worker.wait_for_ledger(
            lambda ledger: (
                ledger[sink]["delivered"] == 40
                and "not_connected" in ledger["lost"]
                and "not_connected" in ledger["bus"]
            )
        )
        worker.wait_for_ledger(bool)  # the one before it is written to the status
        assert kinds(worker, "lines") == ["working"]
        (works,) = findings(worker, sink)
        assert works["kind"] == "working"
        assert works["text"].endswith("40 of 40 received records are delivered.")
        (missing,) = findings(worker, "lost")
        assert missing["kind"] == "topic_missing"
        assert missing["text"].startswith(f"Not connected to the topic {nowhere} for ")
        (bus,) = findings(worker, "bus")
        assert bus["kind"] == "not_connected"
        assert bus["since_ms"] is not None
        in_words = explain(worker, "bus").stdout.splitlines()
        assert in_words[0].startswith("▲ Not connected to the platform at tcp://127.0.0.1:1 for ")
        assert in_words[1].startswith("  → ")
        unknown = explain(worker, "nothing")
        assert unknown.returncode == 2
        assert f"known are bus, lines, lost, {sink}" in unknown.stderr
        assert worker.stop() == 0
    (ended,) = findings(worker, sink)
    assert ended["kind"] == "worker_not_running"
    assert ended["text"].endswith("the connector was STOPPED then.")
