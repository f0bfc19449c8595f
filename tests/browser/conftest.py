"""A real browser on the pages of real workers, over a bus of moving points.

Chromium is Debian's, driven by Playwright. Pages reach nothing but loopback: the browser resolves no other
name, and a request to another address is aborted and fails the test. So do a violation of the
Content-Security-Policy, a console error, an error of a script, and a dialog. A test that provokes an error
says so with ``visit.expected``.
"""

from __future__ import annotations

import getpass
import json
import math
import os
import re
import secrets
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Page,
    Route,
    expect,
    sync_playwright,
)

from tieline.http.passwords import hash_password
from tieline_connectors.volttron_bus.testing.fake_router import FakeRouter
from tieline_lab.process import Process, free_port
from tieline_lab.volttron import VolttronPlatform

CHROMIUM = Path(os.environ.get("TIELINE_TEST_CHROMIUM") or "/usr/bin/chromium")
DEVICE = "campus/building/ahu1"
SETPOINT = f"{DEVICE}/ZoneTemperatureSetPoint"
PROTECTED = f"{DEVICE}/Boiler"
HOSTILE = ("<script>alert(1)</script>", '"><img src=x onerror=alert(2)>', "{{7*7}}", "\u202etxet", "x" * 120)
PASSWORD = "correct horse battery"
USERS = {"vera": "viewer", "olga": "operator", "ada": "admin"}
_HISTORY = {"name": "readings", "connector.class": "history", "topics": "volttron"}
_PUBLISH_SECONDS = 0.25
_WAIT_MS = 15_000
_POLICY = """version: 1
rules:
  - issuers: "*"
    points: campus/building/*/ZoneTemperatureSetPoint
    type: float
    min: 60
    max: 85
    max_hold_minutes: 60
  - issuers: "*"
    points: campus/building/*/Boiler
    type: bool
    confirmation: true
"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker("browser")


class Bus:
    """A platform with devices that publish four times a second, and whose points can be set."""

    def __init__(self, devices: Sequence[int] = (1, 2, 3)) -> None:
        self.devices = devices
        """The numbers of the devices that publish; may be changed."""
        self.values: dict[str, Any] = {SETPOINT: 72.0, PROTECTED: False}
        self.written: list[tuple[str, Any]] = []
        driver: dict[str, Callable[..., Any]] = {
            "set_point": self._set,
            "get_point": self._get,
            "revert_point": self._revert,
        }
        self._router = FakeRouter(rpc={"platform.driver": driver})
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._publish, name="devices", daemon=True)

    @property
    def address(self) -> str:
        """The address of the router."""
        return self._router.address

    def settings(self, identity: str) -> dict[str, str]:
        """Return the settings with which a connector reaches it; every identity is welcome."""
        return {"volttron.address": self.address, "platform.name": "lab"}

    def __enter__(self) -> Bus:
        self._router.start()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()
        self._router.stop()

    def _set(self, path: str, point: str, value: Any) -> Any:
        self.values[f"{path}/{point}"] = value
        self.written.append((f"{path}/{point}", value))
        return value

    def _get(self, path: str, point: str) -> Any:
        return self.values.get(f"{path}/{point}", 0)

    def _revert(self, path: str, point: str) -> None:
        self.values[f"{path}/{point}"] = 72.0
        self.written.append((f"{path}/{point}", None))

    def _publish(self) -> None:
        round_number = 0
        while not self._stopping.is_set():
            for number in self.devices:
                self._publish_device(f"campus/building/ahu{number}", number, round_number)
            round_number += 1
            self._stopping.wait(_PUBLISH_SECONDS)

    def _publish_device(self, path: str, number: int, round_number: int) -> None:
        set_point = self.values.get(f"{path}/ZoneTemperatureSetPoint", 72.0)
        points = {
            "ZoneTemperature": round(set_point + 2 * math.sin(round_number / 20 + number), 3),
            "ZoneTemperatureSetPoint": set_point,
            "OutsideAirTemperature": round(50 + 3 * math.sin(round_number / 200), 2),
            "SupplyFan": round_number % 40 < 20,
            "OccupancyMode": "occupied",
            "Boiler": self.values.get(f"{path}/Boiler", False),
        }
        if number == 3:
            points |= dict.fromkeys(HOSTILE, 1.5) | {"Status": HOSTILE[0]}
        units = {name: {"units": "degF", "type": "float", "tz": "UTC"} for name in points if "Temp" in name}
        headers = {"TimeStamp": datetime.now(timezone.utc).isoformat()}
        self._router.publish(f"devices/{path}/all", headers, [points, units])


class Plant:
    """A worker with pages over a bus. ``connectors`` has the settings of its connectors by their names.

    ``platform``: returns the settings with which a connector of this identity reaches the bus.
    """

    def __init__(
        self,
        folder: Path,
        platform: Callable[[str], dict[str, str]],
        worker: dict[str, str],
        connectors: list[dict[str, str]],
    ) -> None:
        self.folder = folder
        self.kill_switch = folder / "kill"
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/ui"
        policy = folder / "policy.yaml"
        policy.write_text(_POLICY)
        files = {
            "worker": {
                "listeners": f"http://127.0.0.1:{self.port}",
                "data.dir": str(folder / "data"),
                "progress.interval.ms": "1000",
                "offset.flush.interval.ms": "500",
                **worker,
            },
            "bus": {
                "connector.class": "volttron_bus",
                "topic": "volttron",
                "bus.prefixes": "devices",
                **platform("tieline"),
            },
            "commands": {
                "connector.class": "command",
                "topics": "commands",
                "policy.file": str(policy),
                "audit.file": str(folder / "audit.log"),
                "kill.switch.file": str(self.kill_switch),
                **platform("tieline.command"),
            },
            **{each["name"]: each for each in connectors},
        }
        paths: list[Path] = []
        for name, settings in files.items():
            paths.append(folder / f"{name}.json")
            paths[-1].write_text(json.dumps(settings if name == "worker" else {"name": name, **settings}))
        command = [sys.executable, "-m", "tieline.cli.main", "run", *map(str, paths)]
        self.process = Process("worker", command, folder / "worker.log", ready=self._answers)

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/sign-in", timeout=5):
                return True
        except OSError:
            return False


class BusPlant(Plant):
    """A worker with pages over a bus of this process."""

    def __init__(
        self, folder: Path, bus: Bus, worker: dict[str, str], connectors: list[dict[str, str]]
    ) -> None:
        self.bus = bus
        super().__init__(folder, bus.settings, worker, connectors)


class Visit:
    """A browser's window on a plant, and everything that went wrong in it."""

    def __init__(self, context: BrowserContext, plant: Plant) -> None:
        self.plant = plant
        self.context = context
        self.problems: list[str] = []
        self._expected: list[str] = []
        context.set_default_timeout(_WAIT_MS)
        context.add_init_script(
            "addEventListener('securitypolicyviolation',"
            " (event) => console.error('CSP violation', event.violatedDirective, event.blockedURI))"
        )
        context.route(re.compile(r"^(?!(https?|wss?)://127\.0\.0\.1[:/])"), self._block)
        context.on("console", self._check_console)
        context.on("weberror", lambda error: self.problems.append(f"page error: {error.error}"))
        context.on("dialog", self._dismiss)
        self.page = context.new_page()

    def expected(self, *patterns: str) -> None:
        """Accept console errors that contain one of these regular expressions."""
        self._expected.extend(patterns)

    def open(self, path: str) -> Page:
        """Open a page below ``/ui``."""
        self.page.goto(self.plant.url + path)
        return self.page

    def sign_in(self, name: str, password: str = PASSWORD) -> Page:
        """Sign in at the form."""
        page = self.open("/sign-in")
        page.get_by_label("Name").fill(name)
        page.get_by_label("Password").fill(password)
        page.get_by_role("button", name="Sign in").click()
        return page

    def unexpected(self) -> list[str]:
        """Return the problems that the test did not announce."""
        return [each for each in self.problems if not any(re.search(p, each) for p in self._expected)]

    def _block(self, route: Route) -> None:
        self.problems.append(f"request to {route.request.url}")
        route.abort()

    def _check_console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning", "assert"):
            self.problems.append(f"console {message.type}: {message.text} ({message.location.get('url')})")

    def _dismiss(self, dialog: Any) -> None:
        self.problems.append(f"dialog: {dialog.message}")
        dialog.dismiss()


NewVisit = Callable[..., Visit]


@pytest.fixture(scope="session")
def bus() -> Iterator[Bus]:
    """The devices, and the platform on which they can be set."""
    with Bus() as bus:
        yield bus


@pytest.fixture(scope="session")
def chromium() -> Path:
    """The browser's program."""
    if not CHROMIUM.exists():
        pytest.skip(f"no browser: {CHROMIUM} does not exist. Run apt-get install chromium")
    return CHROMIUM


@pytest.fixture(scope="session")
def browser(chromium: Path) -> Iterator[Browser]:
    """A browser. Playwright's driver reads a pipe of this process, and ends with it, however that ends."""
    with sync_playwright() as playwright:
        expect.set_options(timeout=_WAIT_MS)
        arguments = ["--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"]
        browser = playwright.chromium.launch(executable_path=chromium, args=arguments)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def local_plant(tmp_path_factory: pytest.TempPathFactory, bus: Bus) -> Iterator[BusPlant]:
    """A worker on the local log with the sink ``history``."""
    plant = BusPlant(tmp_path_factory.mktemp("local"), bus, {}, [_HISTORY])
    with plant.process:
        yield plant


@pytest.fixture(scope="session")
def kafka_plant(
    tmp_path_factory: pytest.TempPathFactory, bus: Bus, kafka_bootstrap: str, mongo_uri: str
) -> Iterator[BusPlant]:
    """A worker on Kafka with the sink ``mongo``."""
    worker = {
        "bootstrap.servers": kafka_bootstrap,
        "offset.storage.topic": "offsets-pages",
        "offset.storage.partitions": "1",
    }
    mongo = {
        "name": "readings",
        "connector.class": "mongo",
        "topics": "volttron",
        "connection.uri": mongo_uri,
        "database": f"pages_{secrets.token_hex(4)}",
        "collection": "readings",
    }
    plant = BusPlant(tmp_path_factory.mktemp("kafka-pages"), bus, worker, [mongo])
    with plant.process:
        yield plant


@pytest.fixture
def quiet_plant(tmp_path: Path) -> Iterator[BusPlant]:
    """A worker of its own over a bus on which nothing publishes yet."""
    with Bus(devices=()) as bus:
        plant = BusPlant(tmp_path, bus, {}, [_HISTORY])
        with plant.process:
            yield plant


@pytest.fixture(params=["local", pytest.param("kafka", marks=[pytest.mark.kafka, pytest.mark.mongo])])
def plant(request: pytest.FixtureRequest) -> BusPlant:
    """Run the test on both backends, each with the store that belongs to it."""
    plant: BusPlant = request.getfixturevalue(f"{request.param}_plant")
    return plant


@pytest.fixture(scope="module")
def real_plant(
    tmp_path_factory: pytest.TempPathFactory, volttron_platform: VolttronPlatform
) -> Iterator[Plant]:
    """A worker on a real VOLTTRON platform."""

    def settings(identity: str) -> dict[str, str]:
        keys = volttron_platform.keys(identity)
        return {
            "volttron.address": volttron_platform.address,
            "platform.name": "lab",
            "volttron.identity": identity,
            "volttron.secretkey": keys["secretkey"],
            "volttron.serverkey": keys["serverkey"],
        }

    plant = Plant(tmp_path_factory.mktemp("real"), settings, {}, [_HISTORY])
    with plant.process:
        yield plant


@pytest.fixture(scope="session")
def guarded_plant(tmp_path_factory: pytest.TempPathFactory, bus: Bus) -> Iterator[BusPlant]:
    """A worker with users: ``vera`` is a viewer, ``olga`` an operator, ``ada`` an administrator."""
    folder = tmp_path_factory.mktemp("guarded")
    users = folder / "users"
    hashed = hash_password(PASSWORD)
    users.write_text("".join(f"{name} {role} password {hashed}\n" for name, role in USERS.items()))
    users.chmod(0o600)
    plant = BusPlant(folder, bus, {"listeners.users.file": str(users)}, [_HISTORY])
    with plant.process:
        yield plant


@pytest.fixture
def new_visit(browser: Browser) -> Iterator[NewVisit]:
    """Open windows, and fail the test if something went wrong in one of them."""
    visits: list[Visit] = []
    with ExitStack() as at_exit:

        def new_visit(plant: Plant, **options: Any) -> Visit:
            context = browser.new_context(**{"viewport": {"width": 1280, "height": 800}, **options})
            at_exit.callback(context.close)
            visits.append(Visit(context, plant))
            return visits[-1]

        yield new_visit
        problems = [problem for visit in visits for problem in visit.unexpected()]
    assert problems == []


@pytest.fixture
def local_user() -> str:
    """The name under which a worker without users sends commands."""
    return getpass.getuser()
