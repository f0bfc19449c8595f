"""What the config store may say, what is refused, and what a worker is started with."""

import ast
import json
import stat
import sys
from pathlib import Path

import pytest
import tieline_agent
from tieline_agent.settings import Launch, NothingToRunError, SettingsError, environment, read

PROGRAM = sys.executable  # any program that is there
DATA = Path("/data")


def entries(**more):
    return {
        "config": {"tieline": PROGRAM, "worker": {"value.converter": "json"}},
        "connectors/a": {"topic": "x"},
        **more,
    }


def test_the_worker_keeps_its_data_in_the_agents_folder_and_its_log_is_json():
    settings = read(entries(), DATA)
    assert settings.worker == {"data.dir": "/data/worker", "value.converter": "json", "log.format": "json"}


def test_another_folder_for_its_data_is_taken():
    config = {"tieline": PROGRAM, "worker": {"data.dir": "/elsewhere", "log.format": "human"}}
    assert read(entries(config=config), DATA).worker == {"data.dir": "/elsewhere", "log.format": "json"}


def test_a_connector_is_named_by_its_entry_or_by_itself_in_both_shapes():
    more = {
        "connectors/b": {"name": "mine", "topic": "x"},
        "connectors/c": {"name": "yours", "config": {"topic": "x"}},
        "connectors/d": {"config": {"topic": "x"}},
    }
    assert read(entries(**more), DATA).connectors == {
        "connectors/a": {"name": "a", "topic": "x"},
        "connectors/b": {"name": "mine", "topic": "x"},
        "connectors/c": {"name": "yours", "topic": "x"},
        "connectors/d": {"name": "d", "topic": "x"},
    }


def test_every_problem_is_told_at_once_and_no_value():
    config = {
        "tieline": "bin/tieline",
        "workers": {},
        "worker": "s3cret",
        "environment": {"TOKEN": ["s3cret"]},
    }
    with pytest.raises(SettingsError) as refused:
        read({"config": config, "connectors/a": "s3cret", "other": {}}, DATA)
    about = [
        "config: workers is unknown", "config: worker must", "config: tieline must",
        "config: environment: 'TOKEN' must", "connectors/a: is not a JSON object", "other: is unknown",
    ]  # fmt: skip
    lines = str(refused.value).splitlines()
    assert [line.startswith(start) for line, start in zip(lines, about, strict=True)] == [True] * len(about)
    assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize("missing", ["config", "connectors/a"])
def test_no_configuration_and_no_connector_are_nothing_to_run(missing):
    with pytest.raises(NothingToRunError, match="config store has no entry"):
        read({name: value for name, value in entries().items() if name != missing}, DATA)


@pytest.mark.parametrize("tieline", [None, 5, "/nowhere/tieline", "tieline", __file__])
def test_a_program_that_cannot_be_run_is_refused(tieline):
    with pytest.raises(SettingsError, match="absolute path of the program"):
        read(entries(config={"tieline": tieline}), DATA)


@pytest.mark.parametrize(("worker", "grace"), [({}, 10), ({"task.shutdown.graceful.timeout.ms": "9000"}, 14),
                                               ({"task.shutdown.graceful.timeout.ms": [1]}, 10)])  # fmt: skip
def test_a_stop_may_take_what_the_worker_gives_its_tasks_and_a_little(worker, grace):
    assert read(entries(config={"tieline": PROGRAM, "worker": worker}), DATA).grace == grace


def test_the_worker_gets_nothing_of_the_platforms_environment_but_what_everybody_has():
    own = {"HOME": "/home/volttron", "LANG": "C.UTF-8", "PATH": "/venv/bin:/bin", "PYTHONPATH": "/venv",
           "VIRTUAL_ENV": "/venv", "AGENT_SECRETKEY": "s3cret", "VOLTTRON_HOME": "/v",
           "TZ": "UTC"}  # fmt: skip
    settings = read(
        entries(config={"tieline": PROGRAM, "environment": {"MONGO_URI": "m", "LANG": "C"}}), DATA
    )
    assert environment(settings, own) == {
        "PATH": f"{Path(PROGRAM).parent}:/usr/local/bin:/usr/bin:/bin",
        "HOME": "/home/volttron",
        "LANG": "C",
        "TZ": "UTC",
        "MONGO_URI": "m",
    }


def test_files_are_for_their_owner_alone_and_are_read_as_they_were_written(tmp_path):
    settings = read(entries(**{"connectors/../b": {"password": "x"}}), DATA)
    launch = Launch(tmp_path / "there")
    launch.write(settings)
    assert stat.S_IMODE(launch.folder.stat().st_mode) == 0o700
    files = sorted(launch.folder.rglob("*"))
    assert [file.name for file in files] == [
        "connectors-..%2Fb.json",
        "connectors-a.json",
        "settings.json",
        "worker.json",
    ]
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    assert json.loads((launch.folder / "connectors-a.json").read_text()) == {"name": "a", "topic": "x"}
    assert Launch(tmp_path / "there").read() == settings
    assert Launch(tmp_path / "nowhere").read() is None


def test_the_agent_alone_knows_volttron_and_the_rest_only_pythons_own_library():
    imported = {}
    for module in Path(tieline_agent.__file__).parent.glob("*.py"):
        nodes = list(ast.walk(ast.parse(module.read_text())))
        names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
        names += [str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)]
        imported[module.stem] = (
            {name.split(".")[0] for name in names} - sys.stdlib_module_names - {"tieline_agent"}
        )
    assert imported.pop("agent") == {"gevent", "volttron"}
    assert set(imported) == {"__init__", "keeper", "report", "run", "settings", "supervisor"}
    assert set().union(*imported.values()) == set()
