"""The registry in a worker's process, and in a process of its own."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from contextlib import contextmanager

import pytest

from tieline.testing.worker_process import WorkerProcess

TIELINE = [sys.executable, "-m", "tieline.cli.main"]


def get(url):
    with urllib.request.urlopen(url, timeout=10) as answer:
        return json.loads(answer.read())


@pytest.fixture
def port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


@contextmanager
def registry_run(data_dir):
    """Run ``tieline registry run`` and yield its address. SIGTERM ends it cleanly."""
    registry = subprocess.Popen(
        [*TIELINE, "registry", "run", "--listen", "127.0.0.1:0", "--data-dir", str(data_dir)],
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert registry.stderr is not None
        line = next(line for line in registry.stderr if "; Ctrl-C ends it" in line)
        address = re.search(r"http://127\.0\.0\.1:\d+", line)
        assert address
        yield address[0]
    finally:
        registry.send_signal(signal.SIGTERM)
        registry.communicate(timeout=15)
    assert registry.returncode == 0


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
        with registry_run(tmp_path / "data") as beside:
            assert get(f"{beside}/subjects") == [subject]
        assert worker.stop() == 0
    with pytest.raises(OSError, match="refused"):
        get(f"{url}/subjects")


def test_a_registry_that_started_before_the_first_worker_serves_its_schemas(tmp_path, port):
    with registry_run(tmp_path / "data") as url:
        body = json.dumps({"schema": '"int"'}).encode()
        request = urllib.request.Request(f"{url}/subjects/early/versions", body, method="POST")
        request.add_header("Content-Type", "application/vnd.schemaregistry.v1+json")
        assert get(request)["id"] == 1
        settings = {"schema.registry.url": "embedded", "schema.registry.listen": f"127.0.0.1:{port}"}
        with WorkerProcess(tmp_path, settings, files(tmp_path)) as worker:
            worker.wait_for_ledger(lambda ledger: ledger["out"]["delivered"] == 2)
            (written,) = set(get(f"http://127.0.0.1:{port}/subjects")) - {"early"}
            assert get(f"{url}/subjects/{written}/versions/latest")["id"] == 2
            assert worker.stop() == 0


def test_every_problem_of_the_served_registry_is_reported_before_the_start(tmp_path):
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
    for problem in (
        "schema.registry.users.fil: no such setting",
        "schema.registry.max.request.bytes: ",
        "schema.registry.listen: other machines can reach 0.0.0.0:8081, and users.file is not set",
        "none.json: cannot be read",
    ):
        assert problem in ended.stderr
