"""A connector of one's own, from nothing to records, in an environment that has only what it was given."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

pytestmark = [pytest.mark.fresh, pytest.mark.timeout(600)]
ROOT = Path(__file__).parents[2]


def run(*command, folder, **more):
    ended = subprocess.run(
        [str(word) for word in command], cwd=folder, capture_output=True, text=True, timeout=300, **more
    )
    assert ended.returncode == 0, f"{command}\n{ended.stdout[-3000:]}\n{ended.stderr[-3000:]}"
    return ended.stdout


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """A virtual environment with a wheel of this checkout in it, as a user who installs tieline has it."""
    folder = tmp_path_factory.mktemp("fresh")
    run(sys.executable, "-m", "venv", folder / "venv", folder=folder)
    pip = [folder / "venv" / "bin" / "python", "-m", "pip", "--disable-pip-version-check", "-q"]
    run(*pip, "wheel", "--no-deps", "--wheel-dir", folder / "wheels", ROOT, folder=folder)
    (wheel,) = (folder / "wheels").glob("tieline-*.whl")
    run(*pip, "install", wheel, folder=folder)
    return folder / "venv" / "bin"


def rows(path):
    """What the sink wrote: its values, in order."""
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
            return [
                json.loads(value) for (value,) in database.execute("SELECT value FROM records ORDER BY rowid")
            ]
    except sqlite3.OperationalError:  # not there yet
        return []


def test_a_source_and_a_sink_are_made_installed_tested_and_carry_records(environment, tmp_path):
    tieline, python = environment / "tieline", environment / "python"
    for kind in ("source", "sink"):
        run(tieline, "new", "connector", f"my-{kind}", f"--{kind}", folder=tmp_path)
        made = tmp_path / f"tieline-my-{kind}"
        run(python, "-m", "pip", "install", "-q", f"{made}[test]", folder=tmp_path)
        assert " passed" in run(python, "-m", "pytest", "-q", folder=made)
    rows = json.loads(run(tieline, "plugins", "--json", "--check", folder=tmp_path))
    assert {"my-source", "my-sink"} <= {row["name"] for row in rows if row["status"] == "ok"}
    carry(tieline, tmp_path, ["my-source", "my-sink"])


@pytest.mark.parametrize("kind", ["source", "sink"])
def test_the_tests_of_an_http_connector_need_nothing_but_its_extras(environment, tmp_path, kind):
    run(environment / "tieline", "new", "connector", f"web-{kind}", f"--{kind}", "--http", folder=tmp_path)
    made = tmp_path / f"tieline-web-{kind}"
    run(environment / "python", "-m", "pip", "install", "-q", "-e", f"{made}[test]", folder=tmp_path)
    assert " passed" in run(environment / "python", "-m", "pytest", "-q", folder=made)


def test_a_distribution_that_is_dropped_in_carries_records_without_being_installed(environment, tmp_path):
    tieline, python = environment / "tieline", environment / "python"
    for kind in ("source", "sink"):
        run(tieline, "new", "connector", f"dropped-{kind}", f"--{kind}", folder=tmp_path)
        target = tmp_path / "plugins" / kind
        install = [python, "-m", "pip", "install", "-q", "--no-deps", "--target", target]
        run(*install, tmp_path / f"tieline-dropped-{kind}", folder=tmp_path)
    carry(tieline, tmp_path, ["dropped-source", "dropped-sink"], **{"plugin.path": str(tmp_path / "plugins")})


def carry(tieline, folder, names, **settings):
    """A hundred lines through both, as their files say, with one clean stop in the middle."""
    source, sink = names
    worker = {"data.dir": str(folder / "data"), "value.converter": "json", **settings}
    (folder / "worker.json").write_text(json.dumps(worker))
    own = {
        source: {"file": str(folder / "in.txt"), "topic": "lines"},
        sink: {"topics": "lines", "file": str(folder / "out.db")},
    }
    for name, values in own.items():
        (folder / f"{name}.json").write_text(json.dumps({"name": name, "connector.class": name, **values}))
    for count in (50, 100):
        with (folder / "in.txt").open("a") as file:
            file.writelines(f"line {n}\n" for n in range(count - 50, count))
        process = subprocess.Popen(
            [tieline, "run", folder / "worker.json", *(folder / f"{name}.json" for name in names)],
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            until = time.monotonic() + 60
            while len(rows(folder / "out.db")) < count and time.monotonic() < until:
                assert process.poll() is None, "the worker ended by itself"
                time.sleep(0.1)
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0
    assert rows(folder / "out.db") == [f"line {n}" for n in range(100)]
