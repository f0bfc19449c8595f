"""VOLTTRON's programs on one home: the platform, its agents and ``vctl``, each with its environment."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from tieline_lab.cache import FILES
from tieline_lab.process import Process, ProcessError, run
from tieline_lab.volttron.home import Generation, VolttronHome
from tieline_lab.volttron.installation import install

_VCTL_ATTEMPTS = 3


class VolttronPrograms:
    """Builds the processes of one platform. Their logs and their working folder are in ``work``.

    ``say`` is called before the packages are installed.
    """

    def __init__(
        self, work: Path, home: VolttronHome, generation: Generation, say: Callable[[str], None]
    ) -> None:
        self._work = work
        self._home = home
        self._generation: Generation = generation
        self._say = say

    def platform(self, ready: Callable[[], bool]) -> Process:
        """Return the platform's process."""
        venv = self._install()
        return Process(
            f"VOLTTRON {self._generation}.x",
            _as_root(venv, "volttron.server"),
            self._work / "platform.log",
            ready=ready,
            env=self._environment(venv, {"VOLTTRON_HOME": str(self._home.path)}),
            cwd=self._work,
        )

    def agent(
        self, identity: str, program: str, ready: Callable[[], bool], config: str | None = None
    ) -> Process:
        """Return an agent's process; its log has the last part of its identity as its name.

        ``config``: the content of its configuration file, JSON.
        """
        venv = self._install()
        name = identity.rpartition(".")[2]
        return Process(
            f"VOLTTRON's {name}",
            [venv / "bin" / "python", venv / "bin" / program],
            self._work / f"{name}.log",
            ready=ready,
            env=self._environment(venv, self._home.agent_environment(identity, config)),
            cwd=self._work,
        )

    def vctl(self, *words: str | Path) -> str:
        """Run ``vctl``; return its standard output. Raises ``ProcessError``.

        The router drops the identity of the last ``vctl`` a moment after its end, and does not answer another
        one until then. That one has done nothing, and is retried.
        """
        venv = self._install()
        environment = self._environment(venv, {"VOLTTRON_HOME": str(self._home.path)})
        command = [*map(str, _as_root(venv, "volttron.client.commands.control")), *map(str, words)]
        for attempt in range(_VCTL_ATTEMPTS):
            try:
                return run(command, environment)
            except ProcessError as error:
                if attempt == _VCTL_ATTEMPTS - 1 or "No response to hello message" not in str(error):
                    raise
        raise AssertionError("unreachable")

    def _install(self) -> Path:
        return install(self._generation, self._say)

    def _environment(self, venv: Path, program_variables: Mapping[str, str]) -> dict[str, str]:
        foreign = ("VOLTTRON_", "AGENT_", "PYTHON")
        environment = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
        # 2.x asks the program poetry which packages its home's project has; vctl installs into this one.
        environment["VIRTUAL_ENV"] = str(venv)
        environment["PATH"] = f"{venv / 'bin'}:{environment.get('PATH', '')}"
        # 10.x keeps a list of all platforms in the user's home.
        environment["HOME"] = str(self._work)
        if self._generation == "10":  # an agent that the platform starts would look in the home
            environment["VOLTTRON_VIP_ADDR"] = self._home.local_address
        return {**environment, **program_variables}


def _as_root(venv: Path, module: str) -> list[Path | str]:
    """Return the command of a program that would refuse to run as root."""
    return [venv / "bin" / "python", FILES / "volttron_as_root.py", module]
