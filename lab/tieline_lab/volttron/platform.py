"""The platform and its driver: started, stopped, killed, connected to."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

from typing_extensions import Self

from tieline_lab.driver import DriverSettings, half_configured
from tieline_lab.process import Process, ProcessError, free_port
from tieline_lab.vip import Vip, VipError
from tieline_lab.volttron.home import Generation, VolttronHome
from tieline_lab.volttron.programs import VolttronPrograms

HISTORIAN = "platform.historian"
_DRIVER_STARTS = 5


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
        self._programs = VolttronPrograms(self._work, self._home, generation, say)
        self._home_created = False
        self._started: list[Process] = []
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

    @cached_property
    def platform(self) -> Process:
        """The platform's process."""
        return self._programs.platform(self._router_answers)

    @cached_property
    def driver(self) -> Process:
        """The platform driver's process; the platform must have been started once."""
        return self._programs.agent("platform.driver", "volttron-platform-driver", self._devices_answer)

    @cached_property
    def actuator(self) -> Process:
        """The actuator's process; the platform must have been started once."""
        return self._programs.agent("platform.actuator", "volttron-actuator", self._actuator_answers)

    @cached_property
    def historian(self) -> Process:
        """The SQLite historian's process; the platform must have been started once."""
        return self._programs.agent(
            HISTORIAN, "volttron-sqlite-historian", self._historian_answers, self._home.historian_config()
        )

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
        if not self._home_created:  # not again: vctl may have added keys to it
            self._home.create(self.settings)
            self._home_created = True
        # Left behind by a platform that was killed, or even by SIGTERM.
        (self.home / "VOLTTRON_PID").unlink(missing_ok=True)
        self._bus = Vip(self.address, "lab", self.keys("lab"))
        self._start(self.platform)

    def start_driver(self) -> None:
        """Start the platform driver and return when all devices answer: about 0.5 s.

        Their first readings reach the bus one to two intervals later.
        """
        log = self.driver.log
        for _ in range(_DRIVER_STARTS):
            log_size = log.stat().st_size if log.exists() else 0
            self._start(self.driver)
            if not half_configured(log.read_bytes()[log_size:]):
                return
            self._say("VOLTTRON's driver has read only a part of its configuration; it is restarted")
            self.stop_driver()
        raise ProcessError(f"VOLTTRON's driver never read all of its configuration: see {log}")

    def stop_driver(self) -> None:
        """Stop the driver, and so all publications."""
        self._stop(self.driver)

    def start_actuator(self) -> None:
        """10.x: start the actuator, which reserves devices, and return when it answers: about 2 s."""
        self._start(self.actuator)

    def stop_actuator(self) -> None:
        """Stop the actuator."""
        self._stop(self.actuator)

    def start_historian(self) -> None:
        """Start the SQLite historian; return when it answers and has subscribed: about 2 s.

        It stores each point of ``devices/…/all``, a moment after it received it. Its file outlives it.
        """
        self._start(self.historian)

    def stop_historian(self) -> None:
        """Stop the historian."""
        self._stop(self.historian)

    def stop(self) -> None:
        """Stop its agents and the platform."""
        for process in reversed(self._started.copy()):
            self._stop(process)
        self._disconnect()

    def kill(self) -> None:
        """Kill the platform with SIGKILL; the driver continues without it."""
        self.platform.kill()
        self._disconnect()

    def restart(self) -> None:
        """Restart the platform, and the driver if it was started.

        VOLTTRON's agents stop reconnecting after about a second; therefore the driver is restarted, too.
        """
        restart_driver = self.driver in self._started
        self.stop()
        self.start()
        if restart_driver:
            self.start_driver()

    def keys(self, identity: str) -> dict[str, str]:
        """Return ``publickey``, ``secretkey`` and ``serverkey`` of an identity, in z85."""
        return self._home.keys(identity)

    def write_key_files(self, identity: str) -> dict[str, Path]:
        """Write each of these keys to its own file (mode 0600), for configurations that name files."""
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
        """Run ``vctl`` on this platform; return its standard output. Raises ``ProcessError``."""
        return self._programs.vctl(*words)

    def _start(self, process: Process) -> None:
        if process not in self._started:
            self._started.append(process)
        process.start()

    def _stop(self, process: Process) -> None:
        if process in self._started:
            process.stop()
            self._started.remove(process)

    def _disconnect(self) -> None:
        if self._bus is not None:
            self._bus.close()
            self._bus = None

    def _router_answers(self) -> bool:
        return self._answers(lambda bus: bus.hello(0.5))

    def _actuator_answers(self) -> bool:
        # Not get_point: one that comes before it has read its configuration ends it.
        return self._answers(
            lambda bus: bus.call("platform.actuator", "request_cancel_schedule", "lab", "none", timeout=1.0)
        )

    def _historian_answers(self) -> bool:
        # It answers some seconds before it subscribes, and ignores an empty message to its data log.
        return self._answers(lambda bus: bus.call(HISTORIAN, "get_topic_list", timeout=1.0)) and bool(
            self._bus and self._bus.count_subscribers("datalogger/lab", {})
        )

    def _devices_answer(self) -> bool:
        return self._answers(self._read_every_device)

    def _read_every_device(self, bus: Vip) -> None:
        for topic in self.settings.topics():
            bus.call("platform.driver", "get_point", topic, "Reading", timeout=1.0)

    def _answers(self, question: Callable[[Vip], object]) -> bool:
        if self._bus is None:
            return False
        try:
            question(self._bus)
        except VipError:
            return False
        return True
