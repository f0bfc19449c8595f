"""The compose stack of ``docker/``: built, started, looked at, stopped.

``python -m tieline_lab.compose`` is what ``make stack`` runs.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from typing_extensions import Self

from tieline_lab import images, kafka
from tieline_lab.engine import Engine, run
from tieline_lab.process import ProcessError

FOLDER = Path(__file__).parents[2] / "docker"
"""Of a checkout: the stack is no part of the installed package."""

_PUBLISHED = "apache/kafka:4.3.1"
_UP_TIMEOUT = 240.0


class ComposeStack:
    """A project of compose files; as a context its containers are there while it lasts, its volumes longer.

    ``settings``: what the files take from the environment. ``more``: further files.
    """

    def __init__(
        self,
        engine: Engine,
        project: str,
        settings: Mapping[str, str] | None = None,
        more: Sequence[Path] = (),
        say: Callable[[str], None] = print,
    ) -> None:
        self.local = not engine.can_pull(_PUBLISHED)
        """Whether the images are made here, since the published ones cannot be pulled."""
        self._engine = engine
        self._project = project
        self._say = say
        self._environment = {**engine.environment, **(settings or {})}
        files = [FOLDER / "compose.yaml"]
        if self.local:
            say(
                "published images cannot be pulled here; compose.local.yaml takes some from Debian's packages"
            )
            images.make(engine, say)
            files.append(FOLDER / "compose.local.yaml")
            self._environment |= {"PYTHON_IMAGE": images.PYTHON, "JAVA_IMAGE": images.JAVA}
            self._environment["KAFKA_LIBS"] = str(kafka.libs(say))
        self._command = [*_compose(engine), "--project-name", project]
        for file in (*files, *more):
            self._command += ["--file", str(file)]

    def __enter__(self) -> Self:
        run(["sh", str(FOLDER / "secrets.sh")], self._environment)
        try:
            self._say("building the images")
            self.compose("build")
            self._say("starting the services, each when those that it needs are healthy")
            self.compose("up", "--detach", "--remove-orphans")
            self.wait_until_healthy()
        except BaseException:
            self.compose("down")
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._say("stopping the services")
        self.compose("down")

    def compose(self, *words: str) -> str:
        """Run ``docker compose`` with these; returns its standard output. Raises ``ProcessError``."""
        return run([*self._command, *words], self._environment)

    def exec(self, service: str, *command: str) -> str:
        """Run a command in a service's container; returns its standard output. Raises ``ProcessError``."""
        return self.compose("exec", "-T", service, *command)

    def services(self) -> list[str]:
        """Those that keep running, in these files."""
        left_out = {"topics"} | ({"ui"} if self.local else set())
        return [name for name in self.compose("config", "--services").split() if name not in left_out]

    def wait_until_healthy(self, timeout: float = _UP_TIMEOUT) -> None:
        """Return when all are. Raises ``ProcessError``, with its log, if one is not within ``timeout`` s."""
        end = time.monotonic() + timeout
        for service in self.services():
            while self.health(service) != "healthy":
                if time.monotonic() > end:
                    raise ProcessError(
                        f"{service} is not healthy in {timeout:g} s:\n{self.log(service)[-3000:]}"
                    )
                time.sleep(0.5)

    def health(self, service: str) -> str:
        """``starting``, ``healthy``, ``unhealthy``; or the container's state where it does not run."""
        state = self.inspect(service)["State"]
        return str(state["Health"]["Status"] if state["Status"] == "running" else state["Status"])

    def inspect(self, service: str) -> dict[str, Any]:
        """What the engine tells of a service's container."""
        found: list[dict[str, Any]] = json.loads(self._engine.docker("inspect", self._container(service)))
        return found[0]

    def read(self, service: str, path: str) -> str:
        """A file of a service, running or stopped. Raises ``ProcessError`` where there is none."""
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / "file"
            self._engine.docker("cp", f"{self._container(service)}:{path}", copy)
            return copy.read_text("utf-8")

    def _container(self, service: str) -> str:
        labels = {"project": self._project, "service": service}
        filters = [f"--filter=label=com.docker.compose.{name}={value}" for name, value in labels.items()]
        found = self._engine.docker("ps", "--all", "--quiet", *filters).split()
        if len(found) != 1:
            raise ProcessError(f"{service} has {len(found)} containers, not one")
        return found[0]

    def log(self, service: str) -> str:
        """All that it has said since its container was made."""
        return self.compose("logs", "--no-color", service)

    def follow(self, *services: str) -> int:
        """Show what they say until it is interrupted."""
        return subprocess.call(
            [*self._command, "logs", "--follow", "--tail", "20", *services], env=self._environment
        )


def _compose(engine: Engine) -> list[str]:
    """Compose v2 where it is, else the program of old."""
    try:
        engine.docker("compose", "version")
    except ProcessError:
        if shutil.which("docker-compose") is None:
            raise ProcessError("docker compose is missing: install the Compose plugin of Docker") from None
        return ["docker-compose"]
    return ["docker", "compose"]


def main(
    project: Annotated[str, typer.Option(help="The name of the containers and volumes.")] = "tieline",
) -> None:
    """Start the compose stack and show the worker's log until Ctrl-C, which stops all of it.

    The volumes stay: the next start goes on where this one ended.
    """
    try:
        with Engine(_say) as engine, ComposeStack(engine, project, say=_say) as stack:
            _say(
                f"all healthy; docker/README.md tells what to try. DOCKER_HOST={engine.host}; Ctrl-C stops it"
            )
            stack.follow("worker")
    except KeyboardInterrupt:
        _say("stopped")
    except ProcessError as error:
        _say(f"failed: {error}")
        sys.exit(1)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    typer.run(main)
