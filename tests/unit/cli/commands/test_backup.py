"""What ``tieline backup`` and ``tieline restore`` print."""

import json
from contextlib import closing

import pytest
from typer.testing import CliRunner

from tieline.api import SourceRecord, StartupError
from tieline.cli.command_context import WorkerCommandContext
from tieline.cli.main import app
from tieline.runtime.spool.spool import Limits, Spool
from tieline.runtime.task.clock import Counters


@pytest.fixture
def worker(tmp_path):
    """The file of a worker on Kafka with one record in a spool."""
    path = tmp_path / "data" / "spools" / "bus-0.db"
    with closing(Spool(path, Limits(1 << 20, True, 1 << 20), Counters())) as spool:
        spool.append([SourceRecord("t", {"n": 0})])
    file = tmp_path / "worker.json"
    file.write_text(json.dumps({"data.dir": str(tmp_path / "data"), "bootstrap.servers": "127.0.0.1:1"}))
    return file


def run(*arguments):
    return CliRunner().invoke(app, list(map(str, arguments)), obj=WorkerCommandContext())


def test_with_kafka_only_what_is_on_this_disk_is_copied_and_the_output_says_so(worker, tmp_path):
    result = run("backup", tmp_path / "backup", "--worker", worker)
    assert result.exit_code == 0, result.output
    assert "1 file(s), " in result.stdout
    assert "not in it: Kafka at 127.0.0.1:1: topics, offsets and the ledger of commands" in result.stdout
    restored = run("restore", tmp_path / "backup", "--worker", worker, "--replace", "--json")
    assert restored.exit_code == 0, restored.output
    answer = json.loads(restored.stdout)
    assert answer["data.dir"] == str(tmp_path / "data")
    assert answer["replaced"].startswith(f"{tmp_path}/data.replaced-")
    counters = Counters()
    with closing(
        Spool(tmp_path / "data" / "spools" / "bus-0.db", Limits(1 << 20, True, 1 << 20), counters)
    ) as spool:
        assert [record.value for record in spool.read(spool.start, 10, 0).records] == [{"n": 0}]
    assert counters["lost.spool_damaged"] == 0


def test_without_a_worker_the_program_asks_which_one(tmp_path):
    for command in ("backup", "restore"):
        result = run(command, tmp_path / "backup")
        assert isinstance(result.exception, StartupError)
        assert "Give --worker FILE" in str(result.exception)
