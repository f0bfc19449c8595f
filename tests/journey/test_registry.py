"""The registry in a worker's process, and on its own beside one."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import urllib.request

import pytest

from tieline.testing.worker_process import WorkerProcess

TIELINE = [sys.executable, "-m", "tieline.cli.main"]


def get(url):
    with urllib.request.urlopen(url, timeout=10) as answer:
        return json.loads(answer.read())


@pytest.fixture
def port():
    with socket.create_server(("127.0.0.1", 0)) as found:
        return found.getsockname()[1]


def files(folder):
    (folder / "in.txt").write_text("one\ntwo\n")
    source = {"name": "in", "connector.class": "file", "file": str(folder / "in.txt"), "topic": "lines"}
    sink = {"name": "out", "connector.class": "file", "file": str(folder / "out.txt"), "topics": "lines"}
    return [source, sink]


def test_a_worker_serves_the_schemas_that_its_converters_register(tmp_path, port):
    settings = {"schema.registry.url": "embedded", "schema.registry.listen": f"127.0.0.1:{port}"}
    with WorkerProcess(tmp_path, settings, files(tmp_path)) as worker:
        worker.wait_for_ledger(lambda ledger: ledger["out"]["delivered"] == 2)
        url = f"http://127.0.0.1:{port}"
        (subject,) = get(f"{url}/subjects")
        latest = get(f"{url}/subjects/{subject}/versions/latest")
        assert get(f"{url}/schemas/ids/{latest['id']}")["schema"] == latest["schema"]
        beside = subprocess.Popen(
            [*TIELINE, "registry", "run", "--listen", "127.0.0.1:0", "--data-dir", str(tmp_path / "data")],
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            assert beside.stderr is not None
            said = next(line for line in beside.stderr if "; Ctrl-C ends it" in line)
            found = re.search(r"http://127\.0\.0\.1:\d+", said)
            assert found
            assert get(f"{found[0]}/subjects") == [subject]
        finally:
            beside.send_signal(signal.SIGTERM)
            beside.communicate(timeout=15)
        assert beside.returncode == 0
        assert worker.stop() == 0
    with pytest.raises(OSError, match="refused"):
        get(f"{url}/subjects")


def test_every_mistake_of_the_served_registry_is_told_before_the_start(tmp_path):
    settings = {
        "schema.registry.url": "embedded",
        "schema.registry.listen": "0.0.0.0:8081",
        "schema.registry.users.fil": "x",
        "schema.registry.max.request.bytes": "7",
    }
    (tmp_path / "worker.json").write_text(json.dumps({"data.dir": str(tmp_path / "data"), **settings}))
    ended = subprocess.run(
        [*TIELINE, "run", "--check", str(tmp_path / "worker.json"), str(tmp_path / "none.json")],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert ended.returncode == 2
    for said in (
        "schema.registry.users.fil: no such setting",
        "schema.registry.max.request.bytes: ",
        "schema.registry.listen: lets other machines in: name who may use it in users.file",
        "none.json: cannot be read",
    ):
        assert said in ended.stderr
