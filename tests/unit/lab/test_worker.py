"""The lab's worker as far as it needs no server: its files, and what its log tells."""

import json

import pytest

from tieline.api import StartupError
from tieline.config.files import read_settings
from tieline.config.plan import plan
from tieline_lab.driver import DriverSettings
from tieline_lab.process import ProcessError
from tieline_lab.stage import fresh_folder
from tieline_lab.volttron import VolttronPlatform
from tieline_lab.worker import CONNECTORS, TOPICS, LabWorker, Surroundings, write_files


def surroundings(folder, bootstrap=""):
    return Surroundings(
        VolttronPlatform(folder / "volttron", settings=DriverSettings(devices=2)), "mongodb://h:1", bootstrap
    )


@pytest.mark.parametrize("folder", ["plain", "with 'quotes', \"more\": # and ünïcode"])
def test_the_worker_reads_the_same_from_the_files_as_their_writer(tmp_path, folder):
    work = tmp_path / folder
    around = surroundings(work)
    files = write_files(work / "config", work / "data", around)
    assert [file.stem for file in files] == ["worker", *CONNECTORS]
    settings = {file.stem: read_settings(file) for file in files}
    assert settings["worker"]["data.dir"] == str(work / "data")
    assert "bootstrap.servers" not in settings["worker"]
    assert {settings[name]["name"] for name in CONNECTORS} == set(CONNECTORS)
    assert settings["bus"]["volttron.address"] == around.platform.address
    assert settings["command-to-cloud"]["bus.prefixes"] == "devices/campus/building/device1"
    assert {settings[name]["layout"] for name in ("readings", "cloudagent")} == {"reading", "cloudagent"}
    assert settings["commands"]["policy.file"] == str(work / "config" / "policy.yaml")
    assert set(TOPICS) == {
        settings["commands"]["topics"], settings["commands"]["results.topic"], settings["way-back"]["topics"]
    }  # fmt: skip
    assert {settings[name]["connection.uri"] for name in ("readings", "cloudagent")} == {"mongodb://h:1"}
    assert all("$" not in value for file in settings.values() for value in file.values())


def test_the_configuration_is_valid_except_for_the_keys_of_a_missing_home(tmp_path):
    """What ``tieline run --check`` says; the policy has no problem either."""
    files = write_files(tmp_path / "config", tmp_path / "data", surroundings(tmp_path))
    with pytest.raises(StartupError) as refused:
        plan(files[0], files[1:])
    told = str(refused.value).splitlines()
    assert len([line for line in told if "credentials" in line]) == 8
    assert not [line for line in told if "policy" in line or "audit" in line]


def test_with_kafka_the_workers_settings_have_its_address(tmp_path):
    files = write_files(tmp_path, tmp_path / "data", surroundings(tmp_path, "127.0.0.1:9092"))
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
    found = (source, source, sink, sink, other, other, other)
    return dict(zip(CONNECTORS, found, strict=True))


def told(ledgers):
    return json.dumps({"event": "progress", "ledger": ledgers})


@pytest.fixture
def log(tmp_path):
    return tmp_path / "worker.log"


def test_the_log_is_read_line_by_line_and_half_a_line_is_completed_later(log):
    worker = LabWorker([], log)
    first, second = told(ledgers(1)), told(ledgers(2))
    log.write_text(f"a line of Python's own\n{first}\n{second[:40]}")
    worker.follow()
    assert worker.snapshots == 1
    assert worker.ledgers == ledgers(1)
    log.write_text(f"a line of Python's own\n{first}\n{second}\n")
    worker.follow()
    assert worker.snapshots == 2
    assert worker.ledgers == ledgers(2)


@pytest.mark.parametrize(
    ("state", "rests"),
    [
        (ledgers(5), True),
        (ledgers(5, delivered=4), False),
        (ledgers(5, stored=4), False),
        ({**ledgers(5), "bus": {**ledgers(5)["bus"], "in_flight": 1}}, False),
        ({**ledgers(5), "cloudagent": {**ledgers(5)["cloudagent"], "lag": None}}, False),
        ({**ledgers(5), "commands": {**ledgers(5)["commands"], "lag": 1}}, False),
        ({**ledgers(5), "way-back": {**ledgers(5)["way-back"], "in_flight": 1}}, False),
        ({"bus": ledgers(5)["bus"]}, False),
        ({**ledgers(5), "somebody's": {**ledgers(5)["bus"], "in_flight": 1}}, True),
    ],
)
def test_the_worker_is_at_rest_when_everything_received_is_stored(log, state, rests):
    worker = LabWorker([], log)
    log.write_text(told(state) + "\n")
    worker.follow()
    assert worker.at_rest() is rests


def test_a_connector_that_does_not_run_is_reported_once(log):
    worker = LabWorker([], log)
    log.write_text(f"{told(ledgers(1))}\n" + f"{told(ledgers(1, state='FAILED'))}\n" * 3)
    worker.follow()
    assert worker.troubles == [
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
    assert worker.troubles == [f"the worker ended by itself with status 2: {log}"]


def test_a_folder_of_the_lab_is_emptied_and_any_other_is_left_unchanged(tmp_path):
    ours = fresh_folder(tmp_path / "run")
    (ours / "old").touch()
    assert not (fresh_folder(ours) / "old").exists()
    with pytest.raises(ProcessError, match="not the lab's"):
        fresh_folder(tmp_path)
    assert ours.is_dir()
