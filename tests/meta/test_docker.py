"""What of docker/ can be seen without an engine: ports, users, locks, and the lab's own configuration."""

import configparser
import re
from pathlib import Path
from string import Template

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.version import Version

from tieline.config.listener import listener_settings
from tieline_lab.worker import CONNECTORS

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "docker"
COMPOSE = yaml.safe_load((DOCKER / "compose.yaml").read_text("utf-8"))
PLACES = {"data.dir", "bootstrap.servers", "log.format", "progress.interval.ms", "volttron.address",
          "volttron.credentials.file", "volttron.server.credentials.file", "connection.uri", "policy.file",
          "audit.file", "kill.switch.file", "bus.prefixes"}  # fmt: skip


def locked(name):
    text = (DOCKER / f"{name}.lock").read_text("utf-8")
    found = re.findall(r"^([\w.-]+)==([^ ;]+)[^\n]*((?:\n +--hash=sha256:[0-9a-f]{64}[^\n]*)*)", text, re.M)
    return {package: (Version(version), hashes.count("--hash")) for package, version, hashes in found}


def test_every_port_is_published_on_the_loopback_alone():
    ports = [port for service in COMPOSE["services"].values() for port in service.get("ports", ())]
    assert ports
    assert [port for port in ports if not port.startswith("127.0.0.1:${")] == []


def test_every_lasting_service_has_a_health_check_and_restarts():
    services = {name: service for name, service in COMPOSE["services"].items() if name != "topics"}
    assert [name for name, service in services.items() if "test" not in service.get("healthcheck", {})] == []
    assert {service["restart"] for service in services.values()} == {"unless-stopped"}


def test_no_image_of_ours_ends_as_root():
    stages = (DOCKER / "Dockerfile").read_text("utf-8").split("\nFROM ")
    final = [stage for stage in stages if re.match(r"\S+ AS (tieline|lab)\n", stage)]
    assert [re.findall(r"^USER (\S+)", stage, re.M)[-1] for stage in final] == ["10001:10001"] * 2


@pytest.mark.parametrize(("lock", "extras"), [("requirements", ["registry"]), ("lab", ["registry", "lab"])])
def test_the_lock_holds_what_setup_cfg_asks_for_with_hashes(lock, extras):
    setup_cfg = configparser.ConfigParser()
    setup_cfg.read(ROOT / "setup.cfg", "utf-8")
    wanted = [*setup_cfg["options"]["install_requires"].split("\n")]
    for extra in extras:
        wanted += setup_cfg["options.extras_require"][extra].split("\n")
    packages = locked(lock)
    assert all(hashes for _, hashes in packages.values())
    for requirement in map(Requirement, filter(None, wanted)):
        version, _ = packages[requirement.name.lower().replace("_", "-")]
        assert requirement.specifier.contains(version), requirement


def test_the_pages_of_the_stack_need_a_password_that_the_policy_knows_the_user_of():
    worker = yaml.safe_load((DOCKER / "config" / "worker.yaml").read_text("utf-8"))
    service = COMPOSE["services"]["worker"]
    assert listener_settings(worker)["listen"] == "0.0.0.0:8083"
    assert service["ports"] == ["127.0.0.1:${PAGE_PORT:-8083}:8083"]
    (script,) = service["command"]
    added, started = script.strip().splitlines()
    assert started.startswith("exec tieline run worker.yaml ")
    user, file = re.findall(r"^tieline users add (\S+) (\S+) ", added)[0]
    assert file == worker["listeners.users.file"]
    assert user == service["environment"]["TIELINE_ISSUER"]
    secret = added.partition("</run/secrets/")[2]
    assert secret in service["secrets"]
    assert f"new >secrets/{secret}" in (DOCKER / "secrets.sh").read_text("utf-8")


@pytest.mark.parametrize("name", ["worker", *CONNECTORS])
def test_the_stack_has_the_same_settings_as_the_lab_but_for_its_places(name):
    ours = yaml.safe_load((DOCKER / "config" / f"{name}.yaml").read_text("utf-8"))
    lab = Template((ROOT / "lab" / "tieline_lab" / "files" / f"lab-{name}.yaml").read_text("utf-8"))
    theirs = yaml.safe_load(lab.safe_substitute(broker="bootstrap.servers: kafka"))
    for each in (ours, theirs):  # in a container loopback is not reachable; other addresses need users
        each.pop("listeners", None)
        each.pop("listeners.users.file", None)
    assert ours.keys() == theirs.keys()
    assert {key: ours[key] for key in ours.keys() - PLACES} == {
        key: theirs[key] for key in ours.keys() - PLACES
    }


def test_the_policy_is_the_lab_s_but_for_the_person_at_the_keyboard():
    ours = yaml.safe_load((DOCKER / "config" / "policy.yaml").read_text("utf-8"))
    lab = (ROOT / "lab" / "tieline_lab" / "files" / "lab-policy.yaml").read_text("utf-8")
    assert ours == yaml.safe_load(lab.replace(", $person]", "]"))
