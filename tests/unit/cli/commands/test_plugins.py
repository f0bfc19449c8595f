"""``tieline plugins``: what is installed, and a broken one beside it."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from tieline.api import StartupError
from tieline.cli.commands.plugins import plugins
from tieline.plugins.discovery import SINKS
from tieline.testing.distribution import distribution
from tieline_connectors.mongo.config import MongoSinkConfig
from tieline_connectors.mongo.sink import MongoSink


def run(*words):
    return CliRunner().invoke(plugins, list(words))


@pytest.fixture
def broken(tmp_path, monkeypatch):
    """A distribution whose only plugin cannot be imported."""
    info = tmp_path / "broken-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[tieline.sinks]\nbroken = no_such_module:Sink\n")
    monkeypatch.syspath_prepend(str(tmp_path))


def test_every_plugin_is_listed_and_works():
    rows = json.loads(run("--json").stdout)
    assert {("source", "volttron_bus"), ("sink", "mongo"), ("converter", "avro"), ("command", "policy")} <= {
        (row["kind"], row["name"]) for row in rows
    }
    assert {row["status"] for row in rows} == {"ok"}
    assert run("--check").exit_code == 0


def test_an_old_name_of_a_plugin_is_listed_as_an_alias():
    rows = {(row["kind"], row["name"]): row for row in json.loads(run("--json").stdout)}
    installed = "the installed entry points are older than setup.cfg: rm .venv/.check; make .venv/.check"
    assert ("sink", "volttron_bus") in rows, installed
    assert rows["sink", "volttron_bus_sink"]["alias_of"] == "volttron_bus"
    assert rows["sink", "volttron_bus"]["alias_of"] == ""
    assert rows["sink", "com.mongodb.kafka.connect.MongoSinkConnector"]["alias_of"] == "mongo"
    assert "ok (alias of volttron_bus)" in " ".join(run().stdout.replace("│", " ").split())


@pytest.mark.usefixtures("broken")
def test_a_broken_plugin_is_reported_with_its_cause_and_does_not_affect_others():
    rows = {row["name"]: row for row in json.loads(run("--json").stdout)}
    assert (rows["broken"]["distribution"], rows["broken"]["version"]) == ("broken", "1.0")
    assert "no_such_module:Sink cannot be imported: ModuleNotFoundError" in rows["broken"]["status"]
    assert rows["mongo"]["status"] == "ok"
    assert run("--check").exit_code == 1


def test_brackets_in_a_cause_are_shown_as_they_are(tmp_path):
    modules = {"needy": "raise RuntimeError('pip install acme[all] [/b]')"}
    with distribution(tmp_path, "needy", {SINKS: {"needy": "needy:Sink"}}, modules):
        printed = run()
    assert printed.exception is None
    assert "acme[all][/b]" in "".join(printed.stdout.split()).replace("│", "")


def test_the_settings_of_a_plugin_are_those_of_its_configuration():
    (printed,) = json.loads(run("show", "mongo", "--json").stdout)
    assert (printed["kind"], printed["version"]) == ("sink", MongoSink.version)
    assert [setting["name"] for setting in printed["settings"]] == MongoSinkConfig.keys()
    assert all(setting["documentation"] for setting in printed["settings"])
    both = json.loads(run("show", "file", "--json").stdout)
    assert [plugin["kind"] for plugin in both] == ["source", "sink"]
    assert "max.line.bytes" in run("show", "file").stdout


@pytest.mark.parametrize("kind", ["source", "sink", "converter", "transform"])
def test_each_plugin_of_a_kind_can_be_shown(kind):
    names = [row["name"] for row in json.loads(run("--json").stdout) if row["kind"] == kind]
    assert [name for name in names if run("show", name).exit_code] == []


def test_an_unknown_name_is_reported_with_a_similar_one():
    ended = run("show", "mong")
    assert isinstance(ended.exception, StartupError)
    assert "did you mean 'mongo'?" in str(ended.exception)


@pytest.mark.parametrize("name", ["mongo", "file", "avro"])
def test_the_list_and_one_plugin_agree_on_versions_and_say_whose_they_are(name):
    keys = ("kind", "plugin_version", "distribution", "distribution_version")
    rows = [row for row in json.loads(run("--json").stdout) if row["name"] == name]
    listed = [[row[key] for key in keys] for row in rows if row["kind"] not in ("command", "trace")]
    shown = [[plugin[key] for key in keys] for plugin in json.loads(run("show", name, "--json").stdout)]
    assert listed == shown
    text = run("show", name).stdout
    for kind, own_version, of, of_version in shown:
        own_version = f", version {own_version}" if own_version else ""
        assert f"{kind} {name}{own_version}, of {of} {of_version}" in text
