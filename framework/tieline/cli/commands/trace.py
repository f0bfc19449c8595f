"""``tieline trace``: what happened to one record, from the spool to the store."""

from __future__ import annotations

import datetime as dt
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import Progress, TaskID, TextColumn

from tieline.api import StartupError
from tieline.api.commands import parse_time
from tieline.cli.connection import (
    CALL_TIMEOUT,
    BrokerOptions,
    ConnectorFiles,
    WorkerFile,
    open_session,
    required,
    say,
)
from tieline.topics.printable import printable

if TYPE_CHECKING:
    from tieline.support.tracing import Trace


def trace(
    record_id: Annotated[
        str | None, typer.Argument(help="The record's id: its header tieline.id, or a command's id.")
    ] = None,
    worker: WorkerFile = None,
    topic: Annotated[str | None, typer.Option(help="Instead of an id: the record's topic.")] = None,
    partition: Annotated[int, typer.Option(min=0, max=1_000_000, help="Its partition.")] = 0,
    offset: Annotated[int | None, typer.Option(min=0, max=1 << 62, help="Its offset.")] = None,
    files: ConnectorFiles = None,
    since: Annotated[
        str, typer.Option(help="From which time topics are read: ISO 8601, or a span such as 15m, 2h, 7d.")
    ] = "1d",
    timeout: Annotated[
        float, typer.Option(min=1, max=86_400, help="How long reading topics may take, in seconds.")
    ] = 120.0,
    as_json: Annotated[
        bool | None, typer.Option("--json/--no-json", help="One JSON object; the default in a pipe.")
    ] = None,
) -> None:
    """Show what happened to one record: spools, topics, dead letters, stores, and what names its id.

    A command's id finds the command, its results, and on Kafka its ledger. The stores of the sinks that are
    given are asked. Topics are read from --since on; nothing is committed. Also prints where it looked, and
    where it could not. Exit status: 0; 1 if the broker is unavailable; 2 if nothing was started; 3 if the
    record was found nowhere.
    """
    from tieline.config.plan import plan
    from tieline.config.planned import SinkPlan
    from tieline.support.tracing import (
        Trace,
        find_id,
        readable_topics,
        trace_spools,
        trace_stores,
        trace_topics,
    )

    worker = required(worker)
    if (record_id is None) == (topic is None or offset is None):
        raise StartupError("which record? Give its id, or --topic, --partition and --offset")
    try:
        begin = int(parse_time(since, dt.datetime.now(dt.timezone.utc)).timestamp() * 1000)
    except ValueError as error:
        raise StartupError(f"--since: {error}") from None
    planned = plan(worker, files or [])
    data_dir = planned.worker.data_dir
    found = Trace(record_id or "")
    with open_session(BrokerOptions(worker)) as session:
        if topic is not None and offset is not None:
            try:
                found.record_id = find_id(session.broker, (topic, partition, offset), timeout)
            except LookupError as error:
                raise StartupError(str(error)) from None
        trace_spools(found, data_dir / "spools")
        with _counting() as (progress, task):
            topics = readable_topics(session.broker, CALL_TIMEOUT)
            trace_topics(
                found, session.broker, topics, begin, lambda number: progress.advance(task, number), timeout
            )
    sinks = [each for each in planned.connectors if isinstance(each, SinkPlan)]
    trace_stores(found, sinks, data_dir)
    if not sinks:
        found.unavailable["stores"] = "give the file of each sink with --connector-file"
    _show(found, sys.stdout.isatty() is False if as_json is None else as_json)
    sys.exit(0 if found.sightings else 3)


@contextmanager
def _counting() -> Iterator[tuple[Progress, TaskID]]:
    """Show how many records were read, on a terminal."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), TextColumn("{task.completed:.0f} records"))
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        yield progress, progress.add_task("reading topics", total=None)


def _show(found: Trace, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(found.to_json()))
        return
    typer.echo(f"record {printable(found.record_id)}")
    for sighting in found.sightings:
        details = ", ".join(f"{name} {value}" for name, value in sighting.details.items())
        typer.echo(printable(f"{sighting.place}: {sighting.state} ({details})"))
    if not found.sightings:
        typer.echo("found nowhere")
    say(f"looked into {len(found.looked)} places: {', '.join(found.looked)}")
    for place, why in found.unavailable.items():
        say(f"could not look into {place}: {why}")
