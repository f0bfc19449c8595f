"""The broker and the schemas of a worker, for commands that read or send beside it.

A session leaves no group, no committed offset and no lock behind, and creates no topic unless asked to.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import typer

from tieline.api import DataError, StartupError, TielineError
from tieline.broker.backend import Backend, silence_clients
from tieline.broker.client_secrets import secrets as client_secrets
from tieline.config.files import read_settings
from tieline.config.plan import Plan, check_plan
from tieline.config.problems import Problems
from tieline.config.schema_registry import registry_problems, registry_settings
from tieline.config.split import below
from tieline.logs import Redaction
from tieline.topics.printable import printable
from tieline.topics.session import BrokerSession

WorkerFile = Annotated[
    Path | None,
    typer.Option(
        "--worker",
        "-w",
        envvar="TIELINE_WORKER",
        help="The worker's settings file: its broker, security and schema registry.",
    ),
]
ConnectorFiles = Annotated[
    list[Path] | None,
    typer.Option(
        "--connector-file",
        "-c",
        help="A connector's settings, as for tieline run; may be repeated.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of sentences.")]
BootstrapServers = Annotated[
    str | None,
    typer.Option("--bootstrap-servers", help="These Kafka brokers: host:port, separated by commas."),
]
DataDir = Annotated[
    Path | None, typer.Option("--data-dir", help="The local log in this folder, a worker's data.dir.")
]
RegistryUrl = Annotated[
    str | None, typer.Option("--schema-registry-url", help="The URL of an external schema registry.")
]

CALL_TIMEOUT = 5.0
"""Seconds that a broker may take to answer a command."""


@dataclass(frozen=True)
class BrokerOptions:
    """The options that say which broker to use. A worker's file comes first; the others override it."""

    worker: Path | None = None
    bootstrap_servers: str | None = None
    data_dir: Path | None = None
    registry_url: str | None = None

    def settings(self) -> tuple[str, dict[str, str]]:
        """Return where the settings come from, and a worker's flat map of them.

        Raises ``ConfigError`` and ``StartupError``.
        """
        if self.bootstrap_servers is not None and self.data_dir is not None:
            raise StartupError("give either --bootstrap-servers or --data-dir: a topic is in one broker")
        if self.worker is None and self.bootstrap_servers is None and self.data_dir is None:
            raise StartupError(
                "which broker? Give --worker FILE (a worker's settings; or set TIELINE_WORKER), "
                "--bootstrap-servers HOST:PORT or --data-dir FOLDER"
            )
        settings = {} if self.worker is None else read_settings(self.worker)
        if self.bootstrap_servers is not None:
            settings["bootstrap.servers"] = self.bootstrap_servers
        if self.data_dir is not None:
            settings["data.dir"] = str(self.data_dir)
            settings.pop("bootstrap.servers", None)
        if self.registry_url is not None:
            settings["schema.registry.url"] = self.registry_url
        return str(self.worker or "command line"), settings

    def plan(self) -> Plan:
        """Return the checked settings of the worker. Raises ``ConfigError`` and ``StartupError``."""
        where, settings = self.settings()
        return check_plan(where, settings, [])

    def worker_data_dir(self) -> Path:
        """Return the worker's ``data.dir``, which it also has if its broker is Kafka."""
        return self.plan().worker.data_dir


def required(worker: Path | None) -> Path:
    """Return the worker's file, for a command that is about one worker. Raises ``StartupError``."""
    if worker is None:
        raise StartupError("which worker? Give --worker FILE, its settings, or set TIELINE_WORKER")
    return worker


def short_calls(backend: Backend) -> Backend:
    """Return a backend for questions beside a worker: no call waits long, no source offset is read."""
    return replace(backend, call_timeout=CALL_TIMEOUT, offsets_topic="")


@contextmanager
def open_session(
    options: BrokerOptions,
    *,
    make: bool = False,
    offsets: bool = False,
    owner: bool = False,
    secrets: Sequence[str] = (),
) -> Iterator[BrokerSession]:
    """Open a broker and its schemas, and close them at the end.

    ``make``: create a local log that does not exist; by default its absence is an error in the folder's
    name. ``offsets``: also use source offsets, in the worker's ``offset.storage.topic``. ``owner``: own the
    local log, so that no worker runs on it meanwhile. ``secrets``: what no error may show, besides those of
    the worker.

    Raises ``StartupError``, with what to change, before anything is opened, and ``DataDirInUseError``. Any
    other error of tieline inside becomes one message without secrets, and exit status 1.
    """
    where, settings = options.settings()
    plan = check_plan(where, settings, [])
    registry = _registry_settings(where, settings, plan.worker.external_registry)
    redaction = Redaction()
    redaction.add([*secrets, *client_secrets(settings), *client_secrets(registry)])
    silence_clients()
    backend = short_calls(plan.backend)
    if offsets:
        backend = replace(backend, offsets_topic=plan.backend.offsets_topic)
    with _report_errors(redaction, backend.name):
        if backend.is_missing and not make:
            raise StartupError(
                f"{backend.data_dir.absolute()} holds no local log; a worker without bootstrap.servers "
                "creates it at its first start. Is this the worker's data.dir? (a relative path starts here)"
            )
        with closing(BrokerSession(backend.open(owner=owner), backend.name, registry)) as session:
            yield session


def say(text: str, *, error: bool = False) -> None:
    """Print a line about the work itself to standard error, with nothing that moves the terminal's cursor."""
    lines = "\n".join(map(printable, text.split("\n")))
    typer.secho(lines, err=True, fg=typer.colors.RED if error else None)


def _registry_settings(where: str, settings: Mapping[str, str], url: str) -> dict[str, str]:
    """Return what the worker's value converter would use; empty for the topic ``_schemas``."""
    registry = registry_settings(below("value.converter.schema.registry", settings), url)
    if not registry:
        return {}
    problems = Problems()
    problems.extend(registry_problems(registry), where)
    problems.report()
    return registry


@contextmanager
def _report_errors(redaction: Redaction, backend: str) -> Iterator[None]:
    try:
        yield
    except StartupError:
        raise
    except DataError as error:
        cause: Exception = next(iter(error.failures.values()), error)
    except TielineError as error:
        cause = error
    else:
        return
    say(str(redaction.clean(f"{backend}: {cause}")), error=True)
    sys.exit(1)
