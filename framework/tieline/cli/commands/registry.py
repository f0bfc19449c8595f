"""``tieline registry``: serve a schema registry without a worker."""

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
    """Keep ``run`` as a subcommand although it is the only one."""


@registry.command()
def run(
    worker: WorkerFile = None,
    bootstrap_servers: BootstrapServers = None,
    data_dir: DataDir = None,
    listen: Annotated[str, typer.Option(help="Address and port.")] = "127.0.0.1:8081",
    users_file: Annotated[
        Path | None,
        typer.Option(
            help="Who may use the registry: a file written by `tieline users add`. Required if other "
            "machines can connect."
        ),
    ] = None,
    certificate: Annotated[
        Path | None, typer.Option(help="PEM file of a certificate; with it the registry speaks HTTPS.")
    ] = None,
    key: Annotated[Path | None, typer.Option(help="PEM file of its key, without a passphrase.")] = None,
    max_request_bytes: Annotated[
        int,
        typer.Option(
            min=1024, max=100_000_000, help="The largest request body, and so about the largest schema."
        ),
    ] = 1_000_000,
) -> None:
    """Serve the schemas of a broker until SIGTERM or SIGINT. A worker may run at the same time.

    Several registries may serve one Kafka: only one of them at a time makes a change.
    """
    from tieline import logs
    from tieline.registry.http.server import RegistryConfig, RegistryServer
    from tieline.registry.schema_topic import SchemaTopic

    options = {
        "listen": listen,
        "users.file": users_file,
        "ssl.certificate.location": certificate,
        "ssl.key.location": key,
        "max.request.bytes": max_request_bytes,
    }
    flat = {name: str(value) for name, value in options.items() if value is not None}
    config = RegistryConfig.parse(flat, "tieline registry run")
    logs.set_up(style="human", level="INFO")
    with open_session(BrokerOptions(worker, bootstrap_servers, data_dir), make=True) as place:
        server = RegistryServer(SchemaTopic(place.broker), config)
        server.start()
        say(f"schema registry at {server.url}, over {place.name}; Ctrl-C ends it")
        with until_interrupted():
            threading.Event().wait()
        server.stop()
