"""The parts of the lab's worker that need no server: its files, and the reading of its log."""

import json
import socket

import pytest

from tieline.api import StartupError
from tieline.config.files import read_settings
from tieline.config.plan import plan
from tieline_lab.driver import DriverSettings
from tieline_lab.process import ProcessError
from tieline_lab.stage import choose_port, empty_folder
from tieline_lab.volttron import VolttronPlatform
from tieline_lab.worker import (
    CONNECTORS,
    TOPICS,
    WITH_HISTORY,
    Endpoints,
    LabWorker,
    write_config,
)


def create_endpoints(folder, bootstrap=""):
    return Endpoints(
        VolttronPlatform(folder / "volttron", settings=DriverSettings(devices=2)), "mongodb://h:1", bootstrap
    )


@pytest.mark.parametrize("folder", ["plain", "with 'quotes', \"more\": # and ünïcode"])
def test_the_worker_reads_the_same_from_the_files_as_their_writer(tmp_path, folder):
    work = tmp_path / folder
    endpoints = create_endpoints(work)
    files = write_config(work / "config", work / "data", endpoints)
    assert [file.stem for file in files] == ["worker", *CONNECTORS]
    settings = {file.stem: read_settings(file) for file in files}
    assert settings["worker"]["data.dir"] == str(work / "data")
    assert "bootstrap.servers" not in settings["worker"]
    assert {settings[name]["name"] for name in CONNECTORS} == set(CONNECTORS)
    assert settings["bus"]["volttron.address"] == endpoints.platform.address
    assert settings["command-to-cloud"]["bus.prefixes"] == "devices/campus/building/device1"
    assert {settings[name]["layout"] for name in ("readings", "cloudagent")} == {"reading", "cloudagent"}
    assert settings["commands"]["policy.file"] == str(work / "config" / "policy.yaml")
    assert set(TOPICS) == {
        settings["commands"]["topics"], settings["commands"]["results.topic"], settings["way-back"]["topics"]
    }  # fmt: skip
    assert {settings[name]["connection.uri"] for name in ("readings", "cloudagent")} == {"mongodb://h:1"}
    assert all("$" not in value for file in settings.values() for value in file.values())


def test_the_history_replaces_every_sink_of_mongodb(tmp_path):
    endpoints = create_endpoints(tmp_path)._replace(mongo_uri="", page_port=8099)
    files = write_config(tmp_path / "config", tmp_path / "data", endpoints)
    assert [file.stem for file in files] == ["worker", *WITH_HISTORY.names]
    settings = {file.stem: read_settings(file) for file in files}
    assert settings["worker"]["listeners"] == "http://127.0.0.1:8099"
    assert "mongo" not in {settings[name]["connector.class"] for name in WITH_HISTORY.names}
    assert settings["history"]["topics"] == settings["bus"]["topic"]


def test_with_the_history_the_worker_is_at_rest_when_everything_received_is_stored(log):
    state = ledgers(5)
    state = {name: state[name] for name in ("bus", "command-to-cloud", "commands", "way-back")}
    for stored, idle in ((4, False), (5, True)):
        history = {**ledgers(5)["readings"], "delivered": stored, "lag": 5 - stored}
        log.write_text(log_line({**state, "history": history}) + "\n")
        worker = LabWorker([], log, WITH_HISTORY)
        worker.follow()
        assert worker.is_idle() is idle


def test_a_port_that_is_in_use_is_an_error_with_the_fix_and_by_default_another_is_chosen():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(ProcessError, match=f"port {port}: it is in use. Choose another --port"):
            choose_port(port)
        assert choose_port(None, preferred=port) != port
    assert choose_port(port) == port


def test_the_configuration_is_valid_except_for_the_keys_of_a_missing_home(tmp_path):
    """This is what ``tieline run --check`` reports; the policy has no problem either."""
    files = write_config(tmp_path / "config", tmp_path / "data", create_endpoints(tmp_path))
    with pytest.raises(StartupError) as refused:
        plan(files[0], files[1:])
    lines = str(refused.value).splitlines()
    assert len([line for line in lines if "credentials" in line]) == 8
    assert not [line for line in lines if "policy" in line or "audit" in line]


def test_with_kafka_the_workers_settings_have_its_address(tmp_path):
    files = write_config(tmp_path, tmp_path / "data", create_endpoints(tmp_path, "127.0.0.1:9092"))
    assert read_settings(files[0])["bootstrap.servers"] == "127.0.0.1:9092"


def ledgers(received=0, delivered=None, stored=None, state="RUNNING"):
    delivered = received if delivered is None else delivered
    stored = delivered if stored is None else stored
    source = {"state": state, "counters": {"spooled": received}, "in_flight": 0, "delivered": delivered}
    source |= {"spool_records": received - delivered}
    sink = {
        "state": "RUNNING",
        "counters": {},
        "in_flight": 0,
        "delivered": stored,
        "lag": delivered - stored,
    }
    other = {"state": "RUNNING", "counters": {}, "in_flight": 0, "delivered": 7, "lag": 0}
    by_connector = (source, source, sink, sink, other, other, other)
    return dict(zip(CONNECTORS, by_connector, strict=True))


def log_line(ledgers):
    return json.dumps({"event": "progress", "ledger": ledgers})


@pytest.fixture
def log(tmp_path):
    return tmp_path / "worker.log"


def test_the_log_is_read_line_by_line_and_half_a_line_is_completed_later(log):
    worker = LabWorker([], log)
    first, second = log_line(ledgers(1)), log_line(ledgers(2))
    log.write_text(f"a line of Python itself\n{first}\n{second[:40]}")
    worker.follow()
    assert worker.progress_count == 1
    assert worker.ledgers == ledgers(1)
    log.write_text(f"a line of Python itself\n{first}\n{second}\n")
    worker.follow()
    assert worker.progress_count == 2
    assert worker.ledgers == ledgers(2)


@pytest.mark.parametrize(
    ("state", "idle"),
    [
        (ledgers(5), True),
        (ledgers(5, delivered=4), False),
        (ledgers(5, stored=4), False),
        ({**ledgers(5), "bus": {**ledgers(5)["bus"], "in_flight": 1}}, False),
        ({**ledgers(5), "cloudagent": {**ledgers(5)["cloudagent"], "lag": None}}, False),
        ({**ledgers(5), "commands": {**ledgers(5)["commands"], "lag": 1}}, False),
        ({**ledgers(5), "way-back": {**ledgers(5)["way-back"], "in_flight": 1}}, False),
        ({"bus": ledgers(5)["bus"]}, False),
        ({**ledgers(5), "other's": {**ledgers(5)["bus"], "in_flight": 1}}, True),
    ],
)
def test_the_worker_is_at_rest_when_everything_received_is_stored(log, state, idle):
    worker = LabWorker([], log)
    log.write_text(log_line(state) + "\n")
    worker.follow()
    assert worker.is_idle() is idle


def test_a_connector_that_does_not_run_is_reported_once(log):
    worker = LabWorker([], log)
    log.write_text(f"{log_line(ledgers(1))}\n" + f"{log_line(ledgers(1, state='FAILED'))}\n" * 3)
    worker.follow()
    assert worker.problems == [
        f"{name} is FAILED: no reason was given" for name in ("bus", "command-to-cloud")
    ]


def test_a_worker_that_ended_by_itself_is_reported(tmp_path, log):
    file = tmp_path / "worker.yaml"
    file.write_text("no.such.setting: 1\n")
    worker = LabWorker([file], log)
    with pytest.raises(ProcessError, match="ended with status 2"):
        worker.start()
    assert not worker.drain(lambda: False)
    worker.finish()
    assert worker.problems == [f"the worker ended by itself with status 2: see {log}"]


def test_a_folder_of_the_lab_is_emptied_and_any_other_is_left_unchanged(tmp_path):
    folder = empty_folder(tmp_path / "run")
    (folder / "old").touch()
    assert not (empty_folder(folder) / "old").exists()
    with pytest.raises(ProcessError, match="the lab did not create"):
        empty_folder(tmp_path)
    assert folder.is_dir()
