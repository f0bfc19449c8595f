"""A support bundle of a real worker, with secrets planted wherever a worker meets one."""

import base64
import json
import os
import subprocess
import sys
import tarfile
from contextlib import closing
from urllib.parse import quote

from tieline.broker.local.log import LocalLog
from tieline.broker.records import ProducerRecord
from tieline.testing.worker_process import WorkerProcess

PLANTED = {
    "uri": "planted-in-a-uri?1",
    "setting": base64.b64encode(b"planted-in-a-setting").decode(),
    "client": "planted-in-a-client-setting/4",
    "env": "planted-in-the-environment+5",
    "file": "planted-in-a-file 6",
    "typo": "planted-under-a-misspelt-key-7",
    "value": "planted-in-a-value-8",
    "header": "planted-in-a-header-9",
    "key": "planted-in-a-key-10",
}


def bundle(path, *arguments, **environment):
    command = [sys.executable, "-m", "tieline.cli.main", "support-bundle", str(path), *map(str, arguments)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=60, env={**os.environ, **environment}
    )
    assert done.returncode == 0, done.stderr
    with tarfile.open(path) as archive:
        members = {
            member.name.removeprefix("tieline-support/"): archive.extractfile(member) for member in archive
        }
        return {name: file.read().decode() for name, file in members.items() if file is not None}, done


def forms(secret):
    """Every way in which a secret could be written."""
    data = secret.encode()
    encoded = {base64.b64encode(b"x" * n + data).decode().rstrip("=")[4:-4] for n in range(3)}
    return {secret, json.dumps(secret)[1:-1], quote(secret), quote(secret, safe=""), data.hex(), *encoded}


def careless_lines():
    """Log lines with secrets as a client library writes them, and with records."""
    basic = base64.b64encode(f"me:{PLANTED['uri']}".encode()).decode()
    common = {"level": "info", "connector": "careless"}
    yield {
        **common,
        "event": f"sent Authorization: Basic {basic}",
        "url": f"http://a/?p={quote(PLANTED['env'])}",
    }
    yield {**common, "event": f"opened {PLANTED['file']}", "hex": PLANTED["env"].encode().hex()}
    yield {**common, "event": f"the value '{PLANTED['value']}' is odd", "key": PLANTED["key"]}
    yield {**common, "event": "odd", "headers": {"note": PLANTED["header"]}, "why": f"b'{PLANTED['value']}'"}
    yield {**common, "event": "exception", "exception": [{"exc_value": f'bad "{PLANTED["header"]}"'}]}


def assert_absent(members, *outputs):
    for name, secret in PLANTED.items():
        for form in forms(secret):
            for member, text in members.items():
                assert form not in text, (name, form, member)
            for output in outputs:
                assert form not in output, (name, form)


def test_a_bundle_tells_what_helps_and_no_secret_and_no_record(tmp_path, monkeypatch):
    monkeypatch.setenv("PLANTED", PLANTED["env"])
    (tmp_path / "secrets.properties").write_text(f"password={PLANTED['file']}\n")
    data = tmp_path / "data"
    with closing(LocalLog.open(data)) as log:
        log.create_topic("readings")
        log.store.append(
            [
                ProducerRecord(
                    "readings",
                    json.dumps(f"{PLANTED['value']} is no JSON").encode()[:-1],
                    PLANTED["key"].encode(),
                    (("note", PLANTED["header"].encode()),),
                )
            ]
        )
    password = quote(PLANTED["uri"], safe="")
    mongo = {
        "name": "to-mongo",
        "connector.class": "mongo",
        "topics": "readings",
        "value.converter": "json",
        "connection.uri": f"mongodb://${{env:PLANTED}}:{password}@127.0.0.1:1/",
        "database": "lab",
    }
    to_file = {
        "name": "to-file",
        "connector.class": "file",
        "topics": "readings",
        "value.converter": "json",
        "file": f"{tmp_path}/${{file:{tmp_path}/secrets.properties:password}}",
    }
    commands = {
        "name": "commands",
        "connector.class": "command",
        "topics": "commands",
        "volttron.address": "tcp://127.0.0.1:1",
        "platform.name": "lab",
        "policy.file": str(tmp_path / "policy.yaml"),
        "audit.file": str(tmp_path / "audit.log"),
        "signature.keys": f"key:{PLANTED['setting']}",
    }
    (tmp_path / "policy.yaml").write_text("version: 1\nrules: []\n")
    worker = WorkerProcess(tmp_path, {}, [mongo, to_file, commands])
    with worker:
        worker.wait_for_ledger(lambda ledger: ledger["to-file"]["state"] == "FAILED")
        with open(data / "workers" / "recent.log", "a") as recent:  # what a careless plugin could log
            for line in careless_lines():
                recent.write(json.dumps(line) + "\n")
        names = ("to-mongo", "to-file", "commands")
        files = [part for name in names for part in ("--connector-file", tmp_path / f"{name}.json")]
        members, done = bundle(tmp_path / "a.tar.gz", "--worker", tmp_path / "worker.json", *files)
        assert worker.stop() in (0, 1)
    assert_absent(members, done.stdout, done.stderr)
    status = json.loads(members["status.json"])
    assert status[0]["connectors"]["to-file"]["state"] == "FAILED"
    assert json.loads(members["topics.json"])["partitions"]["readings-0"] == {"first": 0, "next": 1}
    settings = json.loads(members["settings/1-to-mongo.json"])
    assert (settings["connection.uri"], settings["database"]) == ("********", "lab")
    assert json.loads(members["settings/3-commands.json"])["signature.keys"] == "********"
    events = [json.loads(line) for line in members["log.jsonl"].splitlines()]
    assert len([line for line in events if line.get("connector") == "careless"]) == 5
    assert any(line.get("connector") == "to-file" and line["level"] == "error" for line in events)
    assert json.loads(members["versions.json"])["sqlite"]
    assert "log.db" in json.loads(members["disk.json"])["files"]
    assert (tmp_path / "a.tar.gz").stat().st_mode & 0o077 == 0


def test_a_bundle_of_settings_with_problems_shows_the_problems_and_no_secret(tmp_path, monkeypatch):
    monkeypatch.setenv("PLANTED", PLANTED["env"])
    (tmp_path / "secrets.properties").write_text(f"password={PLANTED['file']}\n")
    worker = {
        "data.dir": str(tmp_path / "data"),
        "bootstrap.servers": "127.0.0.1:1",
        "sasl.password": PLANTED["client"],
        "sasl.username": "${env:PLANTED}",
        "ssl.key.password": f"${{file:{tmp_path}/secrets.properties:password}}",
        "data.pwd": PLANTED["typo"],
        "log.format": "nonsense",
    }
    connector = {
        "name": "x",
        "connector.class": "mongo",
        "connection.uri": f"mongodb://me:{PLANTED['uri']}@h",
    }
    for name, settings in (("worker", worker), ("x", connector)):
        (tmp_path / f"{name}.json").write_text(json.dumps(settings))
    members, done = bundle(
        tmp_path / "b.tar.gz",
        *("--worker", tmp_path / "worker.json", "--connector-file", tmp_path / "x.json"),
        *("--connector-file", tmp_path / "missing.json"),
        PLANTED=PLANTED["env"],
    )
    assert_absent(members, done.stdout, done.stderr)
    problems = "\n".join(json.loads(members["problems.json"]))
    assert "log.format" in problems
    assert "missing.json" in problems
    shown = json.loads(members["settings/0-worker.json"])
    assert shown["sasl.username"] == "${env:PLANTED}"
    assert shown["data.pwd"] == shown["sasl.password"] == "********"
    assert "problems.json names" in json.loads(members["topics.json"])["unavailable"]
