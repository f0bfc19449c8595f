"""``tieline status`` beside a running worker."""

import json
import subprocess
import sys

from tieline.testing.worker_process import WorkerProcess


def status(folder, *options):
    command = [sys.executable, "-m", "tieline.cli.main", "status", str(folder), *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


def test_status_shows_topics_and_lag_while_the_worker_runs(tmp_path):
    (tmp_path / "in.txt").write_text("".join(f"{n}\n" for n in range(100)))
    connectors = [
        {"name": "lines", "connector.class": "file", "file": str(tmp_path / "in.txt"), "topic": "t"},
        {"name": "out", "connector.class": "file", "file": str(tmp_path / "out.txt"), "topics": "t"},
    ]
    with WorkerProcess(tmp_path, {}, connectors) as worker:
        worker.wait_for_ledger(lambda ledger: ledger["out"]["delivered"] == 100)
        report = json.loads(status(tmp_path / "data", "--json").stdout)
        table = status(tmp_path / "data")
    assert {"topic": "t", "partition": 0, "first": 0, "next": 100, "records": 100} in report["topics"]
    assert report["readers"] == [
        {"reader": "connect-out", "topic": "t", "partition": 0, "committed": 100, "lag": 0}
    ]
    assert table.returncode == 0
    assert "connect-out" in table.stdout


def test_progress_and_status_show_since_when_and_why_a_connector_is_not_connected(tmp_path):
    connectors = [
        {
            "name": "bus",
            "connector.class": "volttron_bus",
            "platform.name": "p",
            "volttron.address": "tcp://127.0.0.1:1",
        },
        {"name": "out", "connector.class": "file", "file": str(tmp_path / "out.txt"), "topics": "nowhere"},
    ]
    with WorkerProcess(tmp_path, {}, connectors) as worker:
        worker.wait_for_ledger(
            lambda ledger: "not_connected" in ledger["bus"] and "not_connected" in ledger["out"]
        )
        worker.wait_for("progress")  # and written to the status
        running = json.loads(status(tmp_path / "data", "--json").stdout)
        assert worker.stop() == 0
    messages = [event["event"] for event in worker.events]
    assert not [text for text in messages if "cannot be counted" in text], "the ledger of a closed spool"
    stopped = json.loads(status(tmp_path / "data", "--json").stdout)
    bus, out = running["connectors"]
    assert (bus["state"], out["state"]) == ("NOT CONNECTED", "NOT CONNECTED")
    assert bus["not_connected"][0]["to"] == "the platform at tcp://127.0.0.1:1"
    assert bus["not_connected"][0]["since"].startswith("20")
    assert out["not_connected"][0]["to"] == "the topic nowhere"
    assert {row["state"] for row in stopped["connectors"]} == {"no worker runs"}


def test_a_folder_without_a_worker_is_reported(tmp_path):
    answer = status(tmp_path)
    assert answer.returncode == 2
    assert "data.dir" in answer.stderr
