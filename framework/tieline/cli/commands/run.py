"""``tieline run``: one worker, until SIGTERM or SIGINT."""

from __future__ import annotations

import gc
import signal
import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tieline import logs, recent_log

if TYPE_CHECKING:
    from tieline.config.plan import Plan
    from tieline.runtime.worker.worker import Worker


def run(
    worker: Annotated[Path, typer.Argument(help="The worker's settings: YAML, JSON or .properties.")],
    connectors: Annotated[list[Path], typer.Argument(help="A file for each connector.")],
    check: Annotated[bool, typer.Option("--check", help="Check the files, and do not start.")] = False,
) -> None:
    """Run a worker with these connectors.

    All problems in the files are reported together, before anything starts (exit status 2). SIGTERM and
    SIGINT stop the worker within task.shutdown.graceful.timeout.ms (exit status 0, or 1 if tasks failed).
    """
    from tieline.config.plan import plan
    from tieline.runtime.worker.factory import open_broker
    from tieline.runtime.worker.worker import Worker

    planned = plan(worker, connectors)
    if check:
        typer.echo(f"{len(planned.connectors)} connector(s) checked, no problems")
        return
    logs.redaction.add(planned.secrets)
    logs.set_up(style=planned.worker.log_format, level=planned.worker.log_level)
    logs.keep_recent(planned.worker.data_dir / recent_log.FILE)
    running = Worker(planned, open_broker(planned))
    # A batch is thousands of containers, which reference counting is about to free. To search them for
    # cycles every 700 objects costs a third of the time (measured) and finds nothing.
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: running.interrupt())
    with _pages(planned, running):
        is_clean = running.run()
    sys.exit(0 if is_clean else 1)


def _pages(planned: Plan, running: Worker) -> AbstractContextManager[None]:
    """Return what serves the worker's pages. Without a listener nothing of them is loaded."""
    if planned.listener is None:
        return nullcontext()
    from tieline.ui.server import serve_pages

    return serve_pages(planned, running)
