"""``tieline schemas``, on the topic of a local log and on a registry over HTTP: the same answers."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from tieline.api import StartupError
from tieline.broker.local.log import LocalLog
from tieline.cli.commands.schemas import schemas
from tieline.registry.http.server import RegistryConfig, RegistryServer
from tieline.registry.schema_topic import SchemaTopic


def record(*fields):
    return json.dumps({"type": "record", "name": "R", "namespace": "lab", "fields": list(fields)})


OLD = record({"name": "n", "type": "int"})
NEW = record({"name": "n", "type": "long"})
BAD = record({"name": "n", "type": "string"})


@pytest.fixture(params=["topic", "http"])
def run(request, tmp_path):
    log = LocalLog.open(tmp_path / "data")
    server = RegistryServer(SchemaTopic(log), RegistryConfig.parse({"listen": "127.0.0.1:0"}))
    server.start()
    by_url = ["--schema-registry-url", server.url]
    where = by_url if request.param == "http" else ["--data-dir", str(tmp_path / "data")]

    def run(*words, status=0):
        ended = CliRunner().invoke(schemas, [*words, *where])
        if isinstance(ended.exception, StartupError):
            raise ended.exception
        assert ended.exit_code == status, ended.output
        return ended

    yield run
    server.stop()
    log.close()


@pytest.fixture
def file(tmp_path):
    def file(text):
        path = tmp_path / "schema.avsc"
        path.write_text(text)
        return str(path)

    return file


def test_schemas_are_registered_listed_and_shown(run, file):
    assert run("register", "readings-value", file(OLD)).stdout == "1\n"
    assert run("register", "readings-value", file(NEW)).stdout == "2\n"
    assert run("register", "other", file(OLD)).stdout == "1\n"
    rows = [json.loads(line) for line in run("list", "--json").stdout.splitlines()]
    assert rows == [
        {"subject": "other", "version": 1, "id": 1, "name": "lab.R"},
        {"subject": "readings-value", "version": 2, "id": 2, "name": "lab.R"},
    ]
    assert "readings-value" in run("list").stdout
    assert json.loads(run("show", "readings-value").stdout) == json.loads(NEW)
    assert json.loads(run("show", "readings-value", "1").stdout) == json.loads(OLD)


def test_a_difference_is_shown_with_its_reader_and_writer(run, file):
    for text in (OLD, NEW):
        run("register", "s", file(text))
    printed = run("diff", "s", "1").stdout
    assert '-      "type": "int"' in printed
    assert '+      "type": "long"' in printed
    assert "version 2 reads what version 1 wrote: yes" in printed
    assert "version 1 reads what version 2 wrote: no\n  'n' is int here and long there" in printed


def test_a_rejection_is_one_sentence(run, file):
    run("register", "s", file(OLD))
    refused = run("register", "s", file(BAD), status=1)
    assert "'n' is string here and int there" in refused.stderr
    assert "Traceback" not in refused.output
    with pytest.raises(StartupError, match="not an Avro schema"):
        run("register", "s", file("{"))


def test_check_reports_incompatible_changes_by_its_exit_status(tmp_path):
    released = tmp_path / "released" / "1.0" / "lab"
    released.mkdir(parents=True)
    (released / "R.avsc").write_text(OLD)
    (tmp_path / "lab").mkdir()
    for text, status, printed in ((NEW, 0, "lab.R: ok"), (BAD, 1, "lab.R: broken")):
        (tmp_path / "lab" / "R.avsc").write_text(text)
        ended = CliRunner().invoke(schemas, ["check", str(tmp_path)])
        assert (ended.exit_code, ended.stdout.splitlines()[0]) == (status, printed)
