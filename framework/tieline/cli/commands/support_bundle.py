"""``tieline support-bundle``: what support needs to know about a worker, without secrets."""

from __future__ import annotations

import datetime as dt
import json
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Annotated

import typer

from tieline.api import StartupError
from tieline.cli.connection import AsJson, ConnectorFiles, WorkerFile, required, short_calls


def support_bundle(
    file: Annotated[
        Path | None, typer.Argument(help="The archive to write; by default tieline-support-TIME.tar.gz.")
    ] = None,
    worker: WorkerFile = None,
    files: ConnectorFiles = None,
    as_json: AsJson = False,
) -> None:
    """Collect versions, masked settings, status, sizes, schema ids and recent log lines in an archive.

    The worker may be running or stopped. Secrets and records are left out. A part that is unavailable, such
    as the topics of a Kafka that does not answer, says so. Read the archive before you send it.
    """
    from tieline.broker.backend import silence_clients
    from tieline.logs import Redaction
    from tieline.support.bundle import write_bundle
    from tieline.support.collecting import parts, read_worker_files
    from tieline.topics.session import BrokerSession

    worker = required(worker)
    now = dt.datetime.now(dt.timezone.utc)
    path = file or Path(f"tieline-support-{now:%Y%m%dT%H%M%S}.tar.gz")
    settings = read_worker_files(worker, files or [])
    redaction = Redaction()
    redaction.add(settings.secrets)
    silence_clients()
    with ExitStack() as stack:

        @cache
        def session() -> BrokerSession:
            if settings.plan is None:
                raise StartupError("the settings have problems, which problems.json names")
            backend = short_calls(settings.plan.backend)
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
