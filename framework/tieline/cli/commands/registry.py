"""``tieline registry``: a schema registry on its own, for whoever speaks Confluent's interface."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Annotated

import typer

from tieline.api.commands import until_interrupted
from tieline.cli.connection import BootstrapServers, BrokerOptions, DataDir, WorkerFile, open_session, say

registry = typer.Typer(
    help="A schema registry that Confluent's clients can use, over the topic _schemas.", no_args_is_help=True
)


@registry.callback()
def group() -> None:
    """Keep ``run`` a command of its own, though it is the only one."""


@registry.command()
def run(
    worker: WorkerFile = None,
    bootstrap_servers: BootstrapServers = None,
    data_dir: DataDir = None,
    listen: Annotated[str, typer.Option(help="Address and port.")] = "127.0.0.1:8081",
    users_file: Annotated[
        Path | None,
        typer.Option(
            help="Who may use it: lines `basic NAME PASSWORD` or `bearer TOKEN`, `read` behind who may only "
            "look. Needed where it listens to other machines."
        ),
    ] = None,
    certificate: Annotated[Path | None, typer.Option(help="PEM; with it HTTPS is spoken.")] = None,
    key: Annotated[Path | None, typer.Option(help="PEM, without a passphrase.")] = None,
    max_request_bytes: Annotated[
        int, typer.Option(min=1024, max=100_000_000, help="The largest schema, about.")
    ] = 1_000_000,
) -> None:
    """Serve the schemas of a broker until SIGTERM or SIGINT; a worker may run beside.

    Several registries on one Kafka agree: each change is made by one of them at a time.
    """
    from tieline import logs
    from tieline.registry.http.server import RegistryConfig, RegistryServer
    from tieline.registry.schema_topic import SchemaTopic

    given = {
        "listen": listen,
        "users.file": users_file,
        "ssl.certificate.location": certificate,
        "ssl.key.location": key,
        "max.request.bytes": max_request_bytes,
    }
    flat = {name: str(value) for name, value in given.items() if value is not None}
    config = RegistryConfig.parse(flat, "tieline registry run")
    logs.set_up(style="human", level="INFO")
    with open_session(BrokerOptions(worker, bootstrap_servers, data_dir), make=True) as place:
        server = RegistryServer(SchemaTopic(place.broker), config)
        server.start()
        say(f"schema registry at {server.url}, over {place.name}; Ctrl-C ends it")
        with until_interrupted():
            threading.Event().wait()
        server.stop()
