"""A Docker engine: a reachable one, else one that is started here for as long as it is needed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

from typing_extensions import Self

from tieline_lab.cache import cache_folder
from tieline_lab.process import Process, ProcessError, run

_PACKAGES = ("docker.io", "docker-compose", "mmdebstrap", "iptables")


class Engine:
    """A Docker engine and its programs, as a context. ``say`` is called before each step.

    If no engine answers and this process is root on Debian, an engine is installed from Debian's packages and
    started with its data in ``.lab/docker``. It and all containers end with this process, even by SIGKILL.
    """

    def __init__(self, say: Callable[[str], None] = print) -> None:
        # Debian's folders for the engine's programs may be missing in PATH.
        self.environment = {**os.environ, "PATH": f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"}
        """The environment in which programs find the engine."""
        self._say = say
        self._dockerd: Process | None = None
        self._at_end = ExitStack()

    @property
    def host(self) -> str:
        """The value of ``DOCKER_HOST`` for other programs; empty if they need none."""
        return self.environment.get("DOCKER_HOST", "")

    @property
    def started_here(self) -> bool:
        """Whether the engine was started here."""
        return self._dockerd is not None

    def __enter__(self) -> Self:
        if not self._answers():
            self._install()
            self._start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._at_end:
            if self._dockerd is not None:
                self._dockerd.stop(60.0)

    def docker(self, *words: str | Path) -> str:
        """Run ``docker``; return its standard output. Raises ``ProcessError``."""
        return run(["docker", *map(str, words)], self.environment)

    def can_pull(self, image: str) -> bool:
        """Fetch a published image unless it exists; return whether it exists then."""
        try:
            self.docker("image", "inspect", image)
        except ProcessError:
            try:
                self.docker("pull", "--quiet", image)
            except ProcessError:
                return False
        return True

    def _answers(self) -> bool:
        if self._find_program("docker") is None:
            return False
        try:
            self.docker("version")
        except ProcessError:
            return False
        return True

    def _install(self) -> None:
        if all(map(self._find_program, ("dockerd", "docker-compose", "mmdebstrap", "iptables"))):
            return
        if os.geteuid() or self._find_program("apt-get") is None:
            raise ProcessError(
                "no Docker engine answers, and only root on Debian can install one here. "
                "Start Docker, or set DOCKER_HOST"
            )
        self._say(f"installing {', '.join(_PACKAGES)} from Debian's packages")
        quiet = {**self.environment, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
        run(["apt-get", "update", "-q"], quiet)
        run(["apt-get", "install", "-q", "-y", "--no-install-recommends", *_PACKAGES], quiet)

    def _find_program(self, program: str) -> str | None:
        return shutil.which(program, path=self.environment["PATH"])

    def _start(self) -> None:
        folder = cache_folder() / "docker"
        # Below /run, since the name of a socket is limited to 107 bytes.
        run_folder = self._at_end.enter_context(TemporaryDirectory(prefix="tieline-docker-", dir="/run"))
        socket = f"unix://{run_folder}/docker.sock"
        # In a PID namespace of its own: the kernel ends all containers with it, whatever ends this process.
        in_namespace = ["unshare", "--fork", "--pid", "--kill-child", "--mount", "--mount-proc", "--"]
        locations = ["--data-root", str(folder / "data"), "--exec-root", run_folder, "--host", socket]
        locations += ["--pidfile", f"{run_folder}/docker.pid", "--storage-driver", "overlay2"]
        self.environment["DOCKER_HOST"] = socket
        self._say(f"starting a Docker engine with its data in {folder}")
        self._dockerd = Process(
            "the Docker engine",
            [*in_namespace, "dockerd", *locations],
            folder / "dockerd.log",
            ready=self._answers,
            env=self.environment,
        )
        self._dockerd.start()
