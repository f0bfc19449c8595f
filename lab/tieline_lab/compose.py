"""The compose stack of ``docker/``: build it, start it, inspect it, stop it.

``make stack`` runs ``python -m tieline_lab.compose``.
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
from tieline_lab.engine import Engine
from tieline_lab.process import ProcessError, run

FOLDER = Path(__file__).parents[2] / "docker"
"""The folder of a checkout: the installed package does not contain the stack."""

_PUBLISHED = "apache/kafka:4.3.1"
_UP_TIMEOUT = 240.0


class ComposeStack:
    """A compose project. A context starts its containers and removes them at the end; its volumes stay.

    ``settings`` are environment variables that the compose files read. ``added_files`` follow the stack's
    own compose files. ``say`` is called before each step.
    """

    def __init__(
        self,
        engine: Engine,
        project: str,
        settings: Mapping[str, str] | None = None,
        added_files: Sequence[Path] = (),
        say: Callable[[str], None] = print,
    ) -> None:
        self.local = not engine.can_pull(_PUBLISHED)
        """Whether images are built from packages, since the published ones cannot be pulled."""
        self._engine = engine
        self._project = project
        self._say = say
        self._environment = {**engine.environment, **(settings or {})}
        files = [FOLDER / "compose.yaml"]
        if self.local:
            say("published images cannot be pulled; compose.local.yaml builds replacements from packages")
            images.build(engine, say)
            files.append(FOLDER / "compose.local.yaml")
            self._environment |= {"PYTHON_IMAGE": images.PYTHON, "JAVA_IMAGE": images.JAVA}
            self._environment["KAFKA_LIBS"] = str(kafka.fetch_libs(say))
        self._command = [*_find_compose(engine), "--project-name", project]
        for file in (*files, *added_files):
            self._command += ["--file", str(file)]

    def __enter__(self) -> Self:
        run(["sh", str(FOLDER / "secrets.sh")], self._environment)
        try:
            self._say("building the images")
            self.compose("build")
            self._say("starting each service as soon as those that it needs are healthy")
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
        """Run ``docker compose`` with these words; return its standard output. Raises ``ProcessError``."""
        return run([*self._command, *words], self._environment)

    def exec(self, service: str, *command: str) -> str:
        """Run a command in a service's container; return its standard output. Raises ``ProcessError``."""
        return self.compose("exec", "-T", service, *command)

    def services(self) -> list[str]:
        """Return the services that keep running."""
        excluded = {"topics"} | ({"ui"} if self.local else set())
        return [name for name in self.compose("config", "--services").split() if name not in excluded]

    def wait_until_healthy(self, timeout: float = _UP_TIMEOUT) -> None:
        """Return when all services are healthy.

        Raises ``ProcessError`` with the log of the first one that is not healthy within ``timeout`` seconds.
        """
        end = time.monotonic() + timeout
        for service in self.services():
            while self.health(service) != "healthy":
                if time.monotonic() > end:
                    raise ProcessError(
                        f"{service} was not healthy within {timeout:g} s:\n{self.log(service)[-3000:]}"
                    )
                time.sleep(0.5)

    def health(self, service: str) -> str:
        """Return ``starting``, ``healthy`` or ``unhealthy``, or the state of a stopped container."""
        state = self.inspect(service)["State"]
        return str(state["Health"]["Status"] if state["Status"] == "running" else state["Status"])

    def inspect(self, service: str) -> dict[str, Any]:
        """Return the engine's description of a service's container."""
        descriptions: list[dict[str, Any]]
        descriptions = json.loads(self._engine.docker("inspect", self._container(service)))
        return descriptions[0]

    def read(self, service: str, path: str) -> str:
        """Return a file of a service, running or stopped. Raises ``ProcessError`` if it is missing."""
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / "file"
            self._engine.docker("cp", f"{self._container(service)}:{path}", copy)
            return copy.read_text("utf-8")

    def _container(self, service: str) -> str:
        labels = {"project": self._project, "service": service}
        filters = [f"--filter=label=com.docker.compose.{name}={value}" for name, value in labels.items()]
        containers = self._engine.docker("ps", "--all", "--quiet", *filters).split()
        if len(containers) != 1:
            raise ProcessError(f"{service} has {len(containers)} containers, not one")
        return containers[0]

    def log(self, service: str) -> str:
        """Return a service's log since its container was created."""
        return self.compose("logs", "--no-color", service)

    def follow(self, *services: str) -> int:
        """Show the logs of these services until it is interrupted; return the exit status."""
        return subprocess.call(
            [*self._command, "logs", "--follow", "--tail", "20", *services], env=self._environment
        )


def _find_compose(engine: Engine) -> list[str]:
    """Return the command of Compose v2 if it is installed, else the one of Compose v1."""
    try:
        engine.docker("compose", "version")
    except ProcessError:
        if shutil.which("docker-compose") is None:
            raise ProcessError("docker compose is missing. Install the Compose plugin of Docker") from None
        return ["docker-compose"]
    return ["docker", "compose"]


def main(
    project: Annotated[
        str, typer.Option(help="The prefix of the containers' and volumes' names.")
    ] = "tieline",
) -> None:
    """Start the compose stack and show the worker's log until Ctrl-C, which stops the stack.

    The volumes stay, so that the next start resumes where this one ended.
    """
    try:
        with Engine(_say) as engine, ComposeStack(engine, project, say=_say) as stack:
            _say(
                "all services are healthy; docker/README.md shows what to try; Ctrl-C stops the stack. "
                f"DOCKER_HOST={engine.host}"
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
