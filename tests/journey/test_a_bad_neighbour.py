"""A connector that fails at its start does not affect the others."""

from tieline.testing.worker_process import WorkerProcess

MODULE = """
from tieline.api import Config, SourceConnector
from tieline_connectors.file.source import FileSourceTask

class Broken(SourceConnector):
    config_type = Config
    task_type = FileSourceTask
    def task_configs(self, max_tasks):
        raise OSError("no such device")
"""


def test_a_connector_that_fails_at_its_start_is_restarted_and_its_neighbours_run(tmp_path, monkeypatch):
    site = tmp_path / "site"
    info = site / "bad_neighbour-1.dist-info"
    info.mkdir(parents=True)
    (site / "bad_neighbour.py").write_text(MODULE)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: bad-neighbour\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[tieline.sources]\nbad_neighbour = bad_neighbour:Broken\n")
    monkeypatch.setenv("PYTHONPATH", str(site))
    (tmp_path / "in.txt").write_text("a\nb\n")
    connectors = [
        {"name": "bad", "connector.class": "bad_neighbour"},
        {"name": "lines", "connector.class": "file", "file": str(tmp_path / "in.txt"), "topic": "t"},
        {"name": "out", "connector.class": "file", "file": str(tmp_path / "out.txt"), "topics": "t"},
    ]
    with WorkerProcess(tmp_path, {}, connectors) as worker:
        ledger = worker.wait_for_ledger(lambda ledger: ledger["out"]["delivered"] == 2)
        assert (ledger["bad"]["state"], ledger["lines"]["state"]) == ("RESTARTING", "RUNNING")
        assert "no such device" in ledger["bad"]["trace"]
        assert worker.stop() == 1
    assert (tmp_path / "out.txt").read_text() == "a\nb\n"
