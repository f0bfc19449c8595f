"""Records in the log → a worker with the sink ``history`` → ``tieline query --worker``."""

import json
import sys

from tieline.api import SinkRecord, identity
from tieline.plugins.discovery import SINKS
from tieline.testing.killed_worker import KilledWorker
from tieline_connectors.history.sink import HistorySink
from tieline_lab.process import run as run_command

START = 1_767_225_600_000_000


def reading(n):
    value = {
        "platform": "p",
        "topic": "devices/d/all",
        "device": "d",
        "kind": "ALL",
        "sender": "driver",
        "headers": {},
        "time": START + n * 1_000_000,
        "time_source": "TIMESTAMP",
        "received": START + n * 1_000_000 + 5,
        "points": {"count": n},
        "metadata": {},
    }
    return SinkRecord("t", 0, n, value, headers=identity(n, digest_of=b"%d" % n))


def test_the_sink_keeps_its_file_in_data_dir_and_query_finds_it_by_the_worker(tmp_path):
    settings = {"topics": "contract", "retention.ms": "-1"}
    worker = KilledWorker(tmp_path, SINKS, HistorySink, settings, {})
    worker.send([reading(n) for n in range(30)])
    with worker.running() as process:
        worker.wait(process, lambda: worker.ledger().get("delivered") == 30, "not all readings were stored")
        arguments = ["query", "--worker", str(tmp_path / "worker.json"), "--format", "json", "--limit", "3"]
        answer = run_command([sys.executable, "-c", "from tieline.cli.main import main; main()", *arguments])
    assert [json.loads(line)["value"] for line in answer.splitlines()] == [29, 28, 27]
    assert (tmp_path / "data" / "history.db").exists()
