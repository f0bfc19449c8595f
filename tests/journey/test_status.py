"""``tieline status`` beside a running worker."""

import json
import subprocess
import sys

from tieline.testing.worker_process import WorkerProcess


def status(folder, *options):
    command = [sys.executable, "-m", "tieline.cli.main", "status", str(folder), *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


def test_it_shows_topics_and_lag_while_the_worker_runs(tmp_path):
    (tmp_path / "in.txt").write_text("".join(f"{n}\n" for n in range(100)))
    connectors = [
        {"name": "lines", "connector.class": "file", "file": str(tmp_path / "in.txt"), "topic": "t"},
        {"name": "out", "connector.class": "file", "file": str(tmp_path / "out.txt"), "topics": "t"},
    ]
    with WorkerProcess(tmp_path, {}, connectors) as worker:
        worker.wait_for_ledger(lambda ledger: ledger["out"]["delivered"] == 100)
        found = json.loads(status(tmp_path / "data", "--json").stdout)
        table = status(tmp_path / "data")
    assert {"topic": "t", "partition": 0, "first": 0, "next": 100, "records": 100} in found["topics"]
    assert found["readers"] == [
        {"reader": "connect-out", "topic": "t", "partition": 0, "committed": 100, "lag": 0}
    ]
    assert table.returncode == 0
    assert "connect-out" in table.stdout


def test_a_folder_of_nobody_is_a_clear_mistake(tmp_path):
    answer = status(tmp_path)
    assert answer.returncode == 2
    assert "data.dir" in answer.stderr
