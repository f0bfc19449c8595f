"""``tieline backup`` and ``tieline restore``: a worker's disk state, copied and brought back."""

from __future__ import annotations

import json
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tieline.api import StartupError, TielineError
from tieline.cli.connection import AsJson, BrokerOptions, WorkerFile, required, say
from tieline.cli.progress import ProgressBar

if TYPE_CHECKING:
    from tieline.backup.manifest import Manifest
    from tieline.backup.restoring import Restored
    from tieline.config.plan import Plan

_MB = 1 << 20


def backup(
    folder: Annotated[Path, typer.Argument(help="A new or empty folder, best on another disk.")],
    worker: WorkerFile = None,
    rate: Annotated[
        float,
        typer.Option(min=0, max=10_000, help="Megabytes a second at most, for a busy worker; 0: no limit."),
    ] = 16.0,
    as_json: AsJson = False,
) -> None:
    """Copy a worker's disk state: local log, spools, ledger of commands, stores and audit logs in data.dir.

    The worker may be running. Every record that it has acknowledged before is in the backup. Each SQLite file
    is a consistent copy whose integrity is checked; a damaged file is copied anyway, and named. The manifest
    is written last: a folder without manifest.json is an incomplete backup.

    Not in it: the settings, files that they name outside of data.dir, and what is on Kafka or in a database.
    Exit status: 0; 1 if a file is damaged, or there is no backup; 2 if nothing was started.
    """
    from tieline.backup.taking import Source, take_backup

    plan = BrokerOptions(required(worker)).plan()
    source = Source(plan.worker.data_dir, _identity(plan), _not_covered(plan))
    with _errors_on_one_line("there is no backup"), ProgressBar() as progress:
        manifest = take_backup(source, folder, int(rate * _MB), progress)
    _report_backup(manifest, folder, as_json)
    sys.exit(1 if any(copied.problem for copied in manifest.files) else 0)


def restore(
    folder: Annotated[Path, typer.Argument(help="The folder of a backup.")],
    worker: WorkerFile = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Move a data.dir that is not empty aside; it is not deleted.")
    ] = False,
    accept_damaged: Annotated[
        bool, typer.Option("--accept-damaged", help="Also restore files in which damage was found.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Put a backup in the place of a stopped worker's data.dir, in one step.

    The backup is verified first. No command is executed a second time: commands that waited in the backup end
    as UNKNOWN (RESTORED), and unknown ones that were issued before the worker's next start are rejected
    (FORGOTTEN). Records may be delivered again, with the same identity. Never run two workers on one backup.
    Exit status: 0; 1 if a file cannot be copied, and then nothing was changed; 2 if nothing was started.
    """
    from tieline.backup.restoring import restore_backup

    data_dir = BrokerOptions(required(worker)).worker_data_dir()
    with _errors_on_one_line("nothing was changed"), ProgressBar() as progress:
        restored = restore_backup(folder, data_dir, progress, replace=replace, accept_damaged=accept_damaged)
    _report_restore(restored, data_dir, as_json)


def _identity(plan: Plan) -> dict[str, str]:
    return {
        "host": socket.gethostname(),
        "data.dir": str(plan.worker.data_dir.absolute()),
        "broker": plan.backend.name,
    }


def _not_covered(plan: Plan) -> list[str]:
    outside = ["settings, and files that they name outside of data.dir (policy, keys, audit logs, stores)"]
    if plan.worker.bootstrap_servers:
        outside.append(
            f"{plan.backend.name}: topics, offsets and the ledger of commands; only spools, pages and files "
            "of connectors are on this disk"
        )
    return outside


def _report_restore(restored: Restored, data_dir: Path, as_json: bool) -> None:
    manifest = restored.manifest
    if as_json:
        report = {
            "data.dir": str(data_dir.absolute()),
            "backup": {"started": manifest.started, "ended": manifest.ended},
            "replaced": None if restored.replaced is None else str(restored.replaced),
            "kept": list(restored.kept),
            "left": list(map(str, restored.left)),
        }
        typer.echo(json.dumps(report))
        return
    typer.echo(f"{len(manifest.files)} file(s), backed up at {manifest.started}: {data_dir}")
    if restored.replaced is not None:
        typer.echo(f"the former folder is {restored.replaced}")
    for name in restored.kept:
        typer.echo(f"{name}: the former one is kept, because it continues that of the backup")
    for path in restored.left:
        typer.echo(f"{path}: left by an interrupted restore; it may hold a worker's former data")


def _report_backup(manifest: Manifest, folder: Path, as_json: bool) -> None:
    size = sum(copied.size for copied in manifest.files)
    damaged = {copied.path: copied.problem for copied in manifest.files if copied.problem}
    if as_json:
        report: dict[str, Any] = {
            "folder": str(folder.absolute()),
            "files": len(manifest.files),
            "bytes": size,
            "damaged": damaged,
            "not_covered": list(manifest.not_covered),
            "started": manifest.started,
            "ended": manifest.ended,
        }
        typer.echo(json.dumps(report))
        return
    typer.echo(f"{len(manifest.files)} file(s), {size / _MB:.1f} MB: {folder}")
    for sentence in manifest.not_covered:
        typer.echo(f"not in it: {sentence}")
    for path, problem in damaged.items():
        say(f"{path} is damaged: {problem}; check the disk of the worker", error=True)


@contextmanager
def _errors_on_one_line(if_interrupted: str) -> Iterator[None]:
    """Print an error of tieline or of the system, and end with exit status 1; 130 after Ctrl-C or SIGTERM."""
    status = 1
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
        return
    except StartupError:
        raise
    except TielineError as error:
        message = str(error)
    except OSError as error:
        message = f"{error.filename}: {error.strerror}" if error.filename else str(error)
    except KeyboardInterrupt:
        message, status = f"interrupted: {if_interrupted}", 130
    finally:
        signal.signal(signal.SIGTERM, before)
    say(message, error=True)
    sys.exit(status)
