"""``tieline support-bundle``: what a person who helps needs to know, without secrets."""

from __future__ import annotations

import datetime as dt
import json
from contextlib import ExitStack
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Annotated

import typer

from tieline.api import StartupError
from tieline.cli.connection import WorkerFile


def support_bundle(
    file: Annotated[
        Path | None, typer.Argument(help="The archive to write; by default tieline-support-TIME.tar.gz.")
    ] = None,
    worker: WorkerFile = None,
    connector: Annotated[
        list[Path] | None, typer.Option("--connector", "-c", help="A connector's file; once for each.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Collect versions, masked settings, status, sizes, schema ids and recent log lines in an archive.

    The worker may be running or stopped. Secrets and records are left out. A part that is unavailable, such
    as the topics of a Kafka that does not answer, says so. Read the archive before you send it.
    """
    from tieline.broker.backend import silence_clients
    from tieline.logs import Redaction
    from tieline.support.bundle import write_bundle
    from tieline.support.collecting import parts, read_settings
    from tieline.topics.session import BrokerSession

    if worker is None:
        raise StartupError("which worker? Give --worker FILE, its settings, or set TIELINE_WORKER")
    now = dt.datetime.now(dt.timezone.utc)
    path = file or Path(f"tieline-support-{now:%Y%m%dT%H%M%S}.tar.gz")
    settings = read_settings(worker, connector or [])
    redaction = Redaction()
    redaction.add(settings.secrets)
    silence_clients()
    with ExitStack() as stack:

        @cache
        def session() -> BrokerSession:
            if settings.plan is None:
                raise StartupError("the settings have problems, which problems.json names")
            backend = replace(settings.plan.backend, call_timeout=5.0, offsets_topic="")
            if backend.is_missing:
                raise StartupError(f"{backend.data_dir.absolute()} holds no local log")
            opened = BrokerSession(backend.open(owner=False), backend.name, settings.plan.external_registry)
            stack.callback(opened.close)
            return opened

        data_dir = Path("tieline-data") if settings.plan is None else settings.plan.worker.data_dir
        written = settings.files[str(worker)].get("data.dir")
        if settings.plan is None and written:
            data_dir = Path(written)
        sizes = write_bundle(path, parts(settings, data_dir, session), redaction)
    if as_json:
        typer.echo(json.dumps({"file": str(path.absolute()), "bytes": path.stat().st_size, "parts": sizes}))
        return
    typer.echo(f"{path}: {path.stat().st_size} bytes, {len(sizes)} files. Read it before you send it.")
