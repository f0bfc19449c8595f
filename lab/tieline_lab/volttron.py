"""A real VOLTTRON platform on this machine, 2.x or 10.x, with a driver of simulated devices."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from typing_extensions import Self

from tieline_lab.cache import FILES, cache_folder, once
from tieline_lab.driver import DriverSettings, half_configured
from tieline_lab.process import Process, ProcessError, free_port
from tieline_lab.vip import Vip, VipError
from tieline_lab.volttron_home import Generation, VolttronHome

_DRIVER_STARTS = 5


def why_not() -> str | None:
    """Return why this machine cannot run VOLTTRON, or ``None`` if it can."""
    return None if _python() else "VOLTTRON needs Python 3.10, 3.11 or 3.12; none was found"


def environment(generation: Generation, say: Callable[[str], None] = print) -> Path:
    """Return VOLTTRON's virtual environment; the first call creates it in about 25 s."""
    requirements = FILES / f"volttron-{generation}-requirements.txt"
    python = _python()
    if python is None:
        raise ProcessError(str(why_not()))

    def create(folder: Path) -> None:
        say(f"installing VOLTTRON {generation}.x into {folder}")
        _run([python, "-m", "venv", str(folder / "venv")])
        pip = [str(folder / "venv" / "bin" / "python"), "-m", "pip", "--disable-pip-version-check"]
        _run([*pip, "install", "-q", "-r", str(requirements)])

    recipe = f"{python} {requirements.read_text()}"
    return once(cache_folder() / f"volttron-{generation}", recipe, create) / "venv"


class VolttronPlatform:
    """One platform and its driver, which a context starts. All its files are in ``work``.

    ``tieline_lab.driver`` describes its devices, topics and messages. ``address`` is the router's address;
    ``None`` means a free port of 127.0.0.1.
    """

    def __init__(
        self,
        work: Path,
        generation: Generation = "2",
        settings: DriverSettings | None = None,
        say: Callable[[str], None] = print,
        *,
        address: str | None = None,
    ) -> None:
        self.settings = settings or DriverSettings()
        self.address = address or f"tcp://127.0.0.1:{free_port()}"
        self._work = work.absolute()
        self._generation: Generation = generation
        self._say = say
        self._home = VolttronHome(self._work, generation, self.address)
        self._platform: Process | None = None
        self._driver: Process | None = None
        self._driver_wanted = False
        self._actuator: Process | None = None
        self._bus: Vip | None = None

    @property
    def home(self) -> Path:
        """VOLTTRON_HOME."""
        return self._home.path

    @property
    def local_address(self) -> str:
        """The router's local socket, abstract (``@``). 2.x has a fixed path for it."""
        return f"ipc://@{self.home}/run/vip.socket" if self._generation == "2" else self._home.local_address

    @property
    def write_log(self) -> Path:
        """The file with a line for every write that reached a device; missing before the first one."""
        return self._home.write_log

    def __enter__(self) -> Self:
        try:
            self.start()
            self.start_driver()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start the platform and return when its router answers: about 2 s for 2.x, 5 s for 10.x."""
        if self._platform is None:
            venv = environment(self._generation, self._say)
            self._home.create(self.settings)
            self._platform = Process(
                f"VOLTTRON {self._generation}.x",
                self._program(venv, "volttron.server"),
                self._work / "platform.log",
                ready=self._answers,
                env=self._environment(venv, {"VOLTTRON_HOME": str(self.home)}),
                cwd=self._work,
            )
        # Left behind by a platform that was killed, or even by SIGTERM.
        (self.home / "VOLTTRON_PID").unlink(missing_ok=True)
        self._bus = Vip(self.address, "lab", self.keys("lab"))
        self._platform.start()

    def start_driver(self) -> None:
        """Start the platform driver and return when all devices answer: about 0.5 s.

        Their first readings reach the bus one to two intervals later.
        """
        if self._driver is None:
            self._driver = self._agent("platform.driver", "volttron-platform-driver", self._devices_answer)
        self._driver_wanted = True
        for _ in range(_DRIVER_STARTS):
            before = self._driver.log.stat().st_size if self._driver.log.exists() else 0
            self._driver.start()
            if not half_configured(self._driver.log.read_bytes()[before:]):
                return
            self._say("VOLTTRON's driver has read only a part of its configuration; it is restarted")
            self._driver.stop()
        raise ProcessError(f"VOLTTRON's driver never read all of its configuration: see {self._driver.log}")

    def stop_driver(self) -> None:
        """Stop the driver, and so all publications."""
        self._driver_wanted = False
        if self._driver is not None:
            self._driver.stop()

    def start_actuator(self) -> None:
        """10.x: start the actuator, which reserves devices, and return when it answers: about 2 s."""
        if self._actuator is None:
            self._actuator = self._agent("platform.actuator", "volttron-actuator", self._actuator_answers)
        self._actuator.start()

    def stop_actuator(self) -> None:
        """Stop the actuator."""
        if self._actuator is not None:
            self._actuator.stop()

    def stop(self) -> None:
        """Stop its agents and the platform."""
        self.stop_actuator()
        self.stop_driver()
        if self._platform is not None:
            self._platform.stop()
        self._disconnect()

    def kill(self) -> None:
        """Kill the platform with SIGKILL; the driver continues without it."""
        self.platform.kill()
        self._disconnect()

    def restart(self) -> None:
        """Restart the platform, and the driver if it was started.

        VOLTTRON's agents stop reconnecting after about a second; therefore the driver is restarted, too.
        """
        driver_wanted = self._driver_wanted
        self.stop()
        self.start()
        if driver_wanted:
            self.start_driver()

    @property
    def platform(self) -> Process:
        """The platform's process, created by the first ``start``."""
        if self._platform is None:
            raise ProcessError("VOLTTRON was not started")
        return self._platform

    @property
    def driver(self) -> Process:
        """The driver's process, created by the first ``start_driver``."""
        if self._driver is None:
            raise ProcessError("VOLTTRON's platform driver was not started")
        return self._driver

    def keys(self, identity: str) -> dict[str, str]:
        """Return ``publickey``, ``secretkey`` and ``serverkey`` of an identity, in z85."""
        return self._home.keys(identity)

    def secrets_files(self, identity: str) -> dict[str, Path]:
        """Return files (mode 0600) with one of these keys each, for configurations that name files."""
        folder = self._work / "secrets" / identity
        folder.mkdir(parents=True, exist_ok=True)
        files = {}
        for name, key in self.keys(identity).items():
            files[name] = folder / name
            files[name].touch(0o600)
            files[name].write_text(key)
        return files

    def connect(self, identity: str = "observer") -> Vip:
        """Return a new connection to the bus, as soon as the router answers.

        If the router has not yet noticed the end of the last connection with this identity, it accepts the
        new one but never reads from it; therefore each attempt opens another one.
        """
        for _ in range(20):
            bus = Vip(self.address, identity, self.keys(identity))
            try:
                bus.hello(0.5)
            except VipError:
                bus.close()
            else:
                return bus
        raise ProcessError(f"VOLTTRON's router does not answer {identity}{self.platform.last_lines()}")

    def writes(self) -> list[dict[str, Any]]:
        """Return every write that reached a device, in order: time, device, point, value, kind, priority."""
        if not self.write_log.exists():
            return []
        return [json.loads(line) for line in self.write_log.read_text().splitlines()]

    def vctl(self, *words: str | Path) -> str:
        """Run ``vctl``; return its standard output. Raises ``ProcessError``.

        The router drops the identity of the last ``vctl`` a moment after its end, and does not answer another
        one until then. That one has done nothing, and is retried.
        """
        venv = environment(self._generation, self._say)
        env = self._environment(venv, {"VOLTTRON_HOME": str(self.home)})
        command = [*map(str, self._program(venv, "volttron.client.commands.control")), *map(str, words)]
        for attempt in range(3):
            try:
                return _run(command, env)
            except ProcessError as error:
                if attempt == 2 or "No response to hello message" not in str(error):
                    raise
        raise AssertionError("unreachable")

    @staticmethod
    def _program(venv: Path, module: str) -> list[Path | str]:
        return [venv / "bin" / "python", FILES / "volttron_as_root.py", module]

    def _agent(self, identity: str, program: str, ready: Callable[[], bool]) -> Process:
        """An agent of the platform; its log is named by the last part of its identity."""
        venv = environment(self._generation, self._say)
        name = identity.rpartition(".")[2]
        return Process(
            f"VOLTTRON's {name}",
            [venv / "bin" / "python", venv / "bin" / program],
            self._work / f"{name}.log",
            ready=ready,
            env=self._environment(venv, self._home.agent_environment(identity)),
            cwd=self._work,
        )

    def _environment(self, venv: Path, more: dict[str, str]) -> dict[str, str]:
        foreign = ("VOLTTRON_", "AGENT_", "PYTHON")
        env = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
        # 2.x asks the program poetry which packages its home's project has; vctl installs into this one.
        env["VIRTUAL_ENV"] = str(venv)
        env["PATH"] = f"{venv / 'bin'}:{env.get('PATH', '')}"
        # 10.x keeps a list of all platforms in the user's home.
        env["HOME"] = str(self._work)
        if self._generation == "10":  # an agent that the platform starts would look in the home
            env["VOLTTRON_VIP_ADDR"] = self._home.local_address
        return {**env, **more}

    def _disconnect(self) -> None:
        if self._bus is not None:
            self._bus.close()
            self._bus = None

    def _answers(self) -> bool:
        if self._bus is None:
            return False
        try:
            self._bus.hello(0.5)
        except VipError:
            return False
        return True

    def _actuator_answers(self) -> bool:
        if self._bus is None:
            return False
        # Not get_point: one that comes before it has read its configuration ends it.
        try:
            self._bus.call("platform.actuator", "request_cancel_schedule", "lab", "none", timeout=1.0)
        except VipError:
            return False
        return True

    def _devices_answer(self) -> bool:
        if self._bus is None:
            return False
        try:
            for topic in self.settings.topics():
                self._bus.call("platform.driver", "get_point", topic, "Reading", timeout=1.0)
        except VipError:
            return False
        return True


def _python() -> str | None:
    """Return a Python for which VOLTTRON's pinned packages have wheels, or ``None``."""
    if sys.hexversion < 0x030D0000:
        return os.path.realpath(sys.executable)
    return next(filter(None, map(shutil.which, ("python3.12", "python3.11", "python3.10"))), None)


def _run(command: list[str], env: dict[str, str] | None = None, cwd: Path | None = None) -> str:
    done = subprocess.run(command, env=env, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ProcessError(f"{' '.join(command)} failed:\n{(done.stdout + done.stderr)[-2000:]}")
    return done.stdout
