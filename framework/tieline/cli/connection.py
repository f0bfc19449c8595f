"""The broker of a worker and its schemas, opened beside it: what commands that look or send share.

Nothing is left behind: no group, no committed offset, no lock, no topic that somebody did not ask for.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated

import typer

from tieline.api import ConfigError, DataError, SchemaStore, StartupError, TielineError
from tieline.broker.kafka import settings as kafka
from tieline.broker.local.log import LocalLog
from tieline.broker.port import Broker, TopicInfo
from tieline.cli.printable import printable
from tieline.config.files import read_settings
from tieline.config.plan import check_plan
from tieline.config.problems import Problems
from tieline.config.settings import below
from tieline.logs import Redaction
from tieline.registry.client import RemoteSchemaStore
from tieline.registry.schema_topic import TopicSchemaStore

WorkerFile = Annotated[
    Path | None,
    typer.Option(
        "--worker",
        "-w",
        envvar="TIELINE_WORKER",
        help="The worker's settings file: its broker, security and schema registry.",
    ),
]
BootstrapServers = Annotated[
    str | None, typer.Option("--bootstrap-servers", help="These Kafka brokers, host:port with commas.")
]
DataDir = Annotated[
    Path | None, typer.Option("--data-dir", help="The local log in this data.dir of a worker.")
]
RegistryUrl = Annotated[
    str | None, typer.Option("--schema-registry-url", help="This schema registry elsewhere.")
]

_CALL_TIMEOUT = 5.0


@dataclass(frozen=True)
class Place:
    """Which broker is meant: that of a worker's file, where the others replace what stands in it."""

    worker: Path | None = None
    bootstrap_servers: str | None = None
    data_dir: Path | None = None
    registry_url: str | None = None

    def settings(self) -> tuple[str, dict[str, str]]:
        """Where they stand, and the flat map of a worker. Raises ``ConfigError``, ``StartupError``."""
        if self.bootstrap_servers is not None and self.data_dir is not None:
            raise StartupError("give either --bootstrap-servers or --data-dir: a record is in one of them")
        if self.worker is None and self.bootstrap_servers is None and self.data_dir is None:
            raise StartupError(
                "which broker? give --worker FILE (a worker's settings; or set TIELINE_WORKER), "
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

    def data_dir_used(self) -> Path:
        """The ``data.dir`` of the worker that is meant, also where its broker is Kafka."""
        where, settings = self.settings()
        return check_plan(where, settings, []).worker.data_dir


class BrokerSession:
    """An open broker, the schemas, and how the place is called in a message."""

    def __init__(self, broker: Broker, called: str, registry: Mapping[str, str]) -> None:
        self.broker = broker
        self.called = called
        self._registry = registry

    @cached_property
    def registry(self) -> RemoteSchemaStore | None:
        """The schema registry elsewhere, if the worker's values have one."""
        return RemoteSchemaStore(self._registry) if self._registry else None

    @cached_property
    def schemas(self) -> SchemaStore:
        """Where a schema gets its id."""
        return self.registry or TopicSchemaStore(self.broker)

    def topic(self, name: str, timeout: float = 10.0) -> TopicInfo | None:
        """The topic, if it is there. Raises ``Retriable``."""
        return self.broker.topics(timeout).get(name)

    def close(self) -> None:
        """Let go of everything."""
        if "registry" in self.__dict__ and self.registry is not None:
            self.registry.close()
        self.broker.close()


@contextmanager
def beside(
    place: Place, *, make: bool = False, offsets: bool = False, owner: bool = False
) -> Iterator[BrokerSession]:
    """Open it, and close it at the end. Raises ``StartupError`` (what to change) before anything is opened.

    ``make``: a local log that is not there yet is begun; otherwise that is a problem in its folder's name.
    ``offsets``: source offsets are looked at too, in the worker's ``offset.storage.topic``. ``owner``: own
    the local log, so that no worker runs on it meanwhile. Raises ``AlreadyOwned``.

    Every error of tieline inside becomes one message without a secret, and exit status 1.
    """
    where, settings = place.settings()
    planned = check_plan(where, settings, [])
    registry = _registry(where, settings, planned.worker.registry_elsewhere)
    redaction = Redaction()
    redaction.add([*kafka.secrets(settings), *kafka.secrets(registry)])
    _silence_librdkafka()
    servers = ",".join(planned.worker.bootstrap_servers)
    folder = planned.worker.data_dir.absolute()
    called = f"Kafka at {servers}" if servers else f"the local log in {folder}"
    with _told(redaction, called):
        if servers:
            from tieline.broker.kafka.broker import KafkaBroker

            topic = planned.worker.offset_storage_topic if offsets else ""
            broker: Broker = KafkaBroker(
                servers, planned.clients, offsets_topic=topic, call_timeout=_CALL_TIMEOUT
            )
        else:
            if not make and not (folder / "log.db").exists():
                raise StartupError(
                    f"{folder} holds no local log; a worker without bootstrap.servers makes it at its first "
                    "start. Is it the worker's data.dir? (a relative one is looked for from here)"
                )
            broker = LocalLog.open(folder, owner=owner)
        with closing(BrokerSession(broker, called, registry)) as opened:
            yield opened


def _silence_librdkafka() -> None:
    """What matters is told by exceptions; its lines are still looked at, for what they may mean."""
    kafka.log.setLevel(logging.INFO)
    kafka.log.propagate = False
    if not kafka.log.handlers:
        kafka.log.addHandler(logging.NullHandler())


def say(text: str, *, wrong: bool = False) -> None:
    """A line about the work itself, to standard error; what it quotes cannot move the terminal's cursor."""
    lines = "\n".join(map(printable, text.split("\n")))
    typer.secho(lines, err=True, fg=typer.colors.RED if wrong else None)


def _registry(where: str, settings: Mapping[str, str], url: str) -> dict[str, str]:
    """What the worker's own value converter would use; empty: the topic ``_schemas``."""
    found = below("value.converter.schema.registry", settings)
    if not found.get("url"):
        found["url"] = url
    if not found["url"]:
        return {}
    problems = Problems()
    try:
        RemoteSchemaStore(found).close()  # connects with the first question only
    except ConfigError as error:
        problems.extend(error.problems, where)
    problems.report()
    return found


@contextmanager
def _told(redaction: Redaction, called: str) -> Iterator[None]:
    try:
        yield
    except StartupError:
        raise
    except DataError as error:
        said: Exception = next(iter(error.failures.values()), error)
    except TielineError as error:
        said = error
    else:
        return
    say(str(redaction.clean(f"{called}: {said}")), wrong=True)
    sys.exit(1)
