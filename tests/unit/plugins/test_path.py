"""Distributions that are dropped into a folder of ``plugin.path``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile

import pytest

from tieline.api import ConfigError
from tieline.plugins.path import activate

SINK = """
from tieline.api import Config, SinkConnector, SinkTask

class Settings(Config):
    pass

class Task(SinkTask[Settings]):
    def put(self, records):
        pass

class AcmeSink(SinkConnector[Settings]):
    config_type = Settings
    task_type = Task
"""


def files(module, name="acme", version="1.0"):
    """What a wheel holds."""
    info = f"{name}-{version}.dist-info"
    return {
        f"{module}.py": SINK,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/entry_points.txt": f"[tieline.sinks]\n{name} = {module}:AcmeSink\n",
    }


def unpacked(folder, content):
    for name, text in content.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def wheel(path, content):
    with zipfile.ZipFile(path, "w") as out:
        for name, text in content.items():
            out.writestr(name, text)
    return path


@pytest.fixture
def dropped(tmp_path):
    """A folder with one distribution of each form, beside a file of no concern."""
    folder = tmp_path / "plugins"
    unpacked(folder / "acme", files("acme_one"))
    wheel(folder / "other-2.0-py3-none-any.whl", files("acme_two", "other", "2.0"))
    (folder / "README").write_text("ours")
    return folder


def tieline(*words, **environment):
    command = [sys.executable, "-m", "tieline.cli.main", *map(str, words)]
    full_environment = {**os.environ, **environment}
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=full_environment)


@pytest.mark.slow
def test_both_forms_are_listed_as_if_they_were_installed(dropped):
    ended = tieline("plugins", "--json", "--check", TIELINE_PLUGIN_PATH=str(dropped))
    assert ended.returncode == 0, ended.stderr
    rows = {row["name"]: row for row in json.loads(ended.stdout)}
    messages = [
        [rows[name][key] for key in ("distribution", "version", "status")] for name in ("acme", "other")
    ]
    assert messages == [["acme", "1.0", "ok"], ["other", "2.0", "ok"]]


@pytest.mark.slow
def test_a_worker_knows_a_connector_that_was_dropped_in(dropped, tmp_path):
    worker, sink = tmp_path / "worker.json", tmp_path / "sink.json"
    settings = {"data.dir": str(tmp_path / "data"), "plugin.path": str(dropped)}
    worker.write_text(json.dumps(settings))
    sink.write_text(json.dumps({"name": "s", "connector.class": "other", "topics": "t"}))
    checked = tieline("run", "--check", worker, sink)
    assert (checked.returncode, checked.stdout) == (0, "1 connector(s) checked, no problems\n")
    del settings["plugin.path"]
    worker.write_text(json.dumps(settings))
    refused = tieline("run", "--check", worker, sink)
    assert refused.returncode == 2
    assert "is called 'other'" in refused.stderr


def test_every_problem_of_the_folders_is_reported(dropped, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    unpacked(dropped / "again", files("acme_one", "again"))
    (dropped / "nothing").mkdir()
    (dropped / "torn.whl").write_bytes(b"PK")
    with pytest.raises(ConfigError) as caught:
        activate(f"{dropped},{tmp_path / 'none'}", "worker.yaml")
    messages = [problem.message for problem in caught.value.problems]
    assert len(messages) == 4
    assert sum("is not a distribution" in each for each in messages) == 2
    assert sum("both bring the module 'acme_one'" in each for each in messages) == 1
    assert sum("is not a folder" in each for each in messages) == 1
    assert not [path for path in sys.path if str(dropped) in path]


def test_packages_of_the_environment_are_never_replaced(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    folder = unpacked(tmp_path / "plugins" / "evil", files("json", "evil"))
    before = list(sys.path)
    assert activate(str(tmp_path / "plugins"), "") == [folder]
    assert sys.path == [*before, str(folder)]
    assert activate(str(tmp_path / "plugins"), "") == []
