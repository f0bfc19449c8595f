"""``tieline offsets``: show the offsets of sinks and sources, and set those of a stopped one."""

from __future__ import annotations

import datetime as dt
import difflib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tieline.api import DataDirInUseError
from tieline.cli.connection import BootstrapServers, BrokerOptions, DataDir, WorkerFile, open_session, say
from tieline.control.offsets import (
    ConnectorOffsets,
    OffsetsRefusedError,
    OffsetTarget,
    SinkMove,
    SourceMove,
    known_connectors,
    refuse_if_worker_runs,
)
from tieline.topics.session import BrokerSession

offsets = typer.Typer(
    help="Show and set the offsets of connectors: a sink's committed ones, a source's saved ones.",
    no_args_is_help=True,
)

Connector = Annotated[str, typer.Argument(help="The connector's name.")]
Topic = Annotated[
    list[str] | None,
    typer.Option(
        "--topic", help="Of a sink: only this topic; may be repeated. Default: every topic it has read."
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show the changes without making them.")]
AsJson = Annotated[bool, typer.Option("--json", help="Lines of JSON instead of a table.")]


@offsets.command("list")
def list_offsets(
    connector: Annotated[str | None, typer.Argument(help="Only this connector.")] = None,
    worker: WorkerFile = None,
    bootstrap_servers: BootstrapServers = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Show the offsets of connectors, which may be running.

    A source whose records cannot be re-read (a bus) has no offsets; its spool holds what waits.
    """
    with open_session(BrokerOptions(worker, bootstrap_servers, data_dir), offsets=True) as session:
        known = known_connectors(session.broker.offsets)
        if connector is not None and connector not in known:
            raise OffsetsRefusedError(_unknown(connector, known, session))
        sinks, sources = [], []
        for name in sorted(known) if connector is None else [connector]:
            if known[name] == "sink":
                sinks += [
                    {"connector": name, "type": "sink", **row._asdict(), "lag": row.lag}
                    for row in ConnectorOffsets(session.broker.offsets, name).sink_offsets()
                ]
            for key, value in sorted(session.broker.source_offsets(name, 10.0).items()):
                sources.append({"connector": name, "type": "source", "partition": key, "offset": value})
    if as_json:
        for sink in sinks:
            typer.echo(json.dumps(sink))
        for source in sources:
            positions = {part: json.loads(source[part]) for part in ("partition", "offset")}
            typer.echo(json.dumps({**source, **positions}))
        return
    _print_table([{k: v for k, v in row.items() if k != "type"} for row in sinks])
    _print_table([{k: v for k, v in row.items() if k != "type"} for row in sources])
    if not sinks and not sources:
        say(f"no connector has offsets in {session.name}")


@offsets.command("set")
def set_offsets(
    connector: Connector,
    to: Annotated[
        str,
        typer.Option(
            help="Of a sink: earliest, latest, an offset, a time (ISO 8601, or 15m, 2h, 7d ago). "
            "Of a source: its offset as JSON."
        ),
    ],
    worker: WorkerFile = None,
    bootstrap_servers: BootstrapServers = None,
    data_dir: DataDir = None,
    topic: Topic = None,
    partition: Annotated[
        list[str] | None,
        typer.Option(
            help="Of a sink: only this partition's number; may be repeated. Default: all. "
            "Of a source: its partition as JSON."
        ),
    ] = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Set the offsets of a stopped connector, and show them before and after.

    The offset is that of the next record to read: to skip the record at 41, set 42. Exit status: 0 done;
    1 the broker is unavailable or refuses; 2 refused, nothing was changed.
    """
    partitions = partition or []
    options = BrokerOptions(worker, bootstrap_servers, data_dir)
    with _open_to_change(options, connector, dry_run) as session:
        store = ConnectorOffsets(session.broker.offsets, connector)
        if any(text.lstrip().startswith("{") for text in partitions):
            saved = session.broker.source_offsets(connector, 10.0)
            _change_source(
                store, [store.plan_source(text, to, saved) for text in partitions], dry_run, as_json
            )
            return
        _refuse_source(
            session, connector, "--partition and --to with JSON, as tieline offsets list shows them"
        )
        target = OffsetTarget.parse(to, dt.datetime.now(dt.timezone.utc))
        _change_sink(
            store, store.plan_set(target, topic or [], _partition_numbers(partitions)), dry_run, as_json
        )


@offsets.command("reset")
def reset_offsets(
    connector: Connector,
    worker: WorkerFile = None,
    bootstrap_servers: BootstrapServers = None,
    data_dir: DataDir = None,
    partition: Annotated[
        list[str] | None, typer.Option(help="Of a source: only this partition, as JSON; may be repeated.")
    ] = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Remove the offsets of a stopped connector, so that it reads everything again from the beginning.

    Exit status: 0 done; 1 the broker is unavailable or refuses; 2 refused, nothing was changed.
    """
    with _open_to_change(BrokerOptions(worker, bootstrap_servers, data_dir), connector, dry_run) as session:
        store = ConnectorOffsets(session.broker.offsets, connector)
        saved = session.broker.source_offsets(connector, 10.0)
        if saved:
            moves = [store.plan_source(text, None, saved) for text in partition or sorted(saved)]
            _change_source(store, moves, dry_run, as_json)
            return
        if partition:
            raise OffsetsRefusedError(
                f"{connector} is not a source with saved offsets; to set back single partitions of a sink: "
                f"tieline offsets set {connector} --partition {partition[0]} --to earliest"
            )
        if connector not in known_connectors(session.broker.offsets):
            raise OffsetsRefusedError(_unknown(connector, known_connectors(session.broker.offsets), session))
        _change_sink(store, store.plan_reset(), dry_run, as_json)


@contextmanager
def _open_to_change(options: BrokerOptions, connector: str, dry_run: bool) -> Iterator[BrokerSession]:
    """Open the broker; to change something, own the local log, so that no worker runs meanwhile."""
    try:
        if not dry_run:
            refuse_if_worker_runs(connector, options.worker_data_dir())
        with open_session(options, offsets=True, owner=not dry_run) as session:
            yield session
    except DataDirInUseError as error:
        raise OffsetsRefusedError(
            f"the offsets of {connector} cannot be changed while a worker runs: "
            f"{str(error).partition(';')[0]}. Stop that process, and repeat this"
        ) from None


def _refuse_source(session: BrokerSession, connector: str, instead: str) -> None:
    if known_connectors(session.broker.offsets).get(connector) == "source":
        raise OffsetsRefusedError(f"{connector} is a source; give {instead}")


def _unknown(connector: str, known: dict[str, str], session: BrokerSession) -> str:
    near = difflib.get_close_matches(connector, known, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    names = ", ".join(f"{name} ({kind})" for name, kind in sorted(known.items())) or "none"
    return (
        f"no connector {connector} has offsets in {session.name}; {hint}connectors that have some: {names}. "
        "(A source whose records cannot be re-read, such as a bus, has a spool instead)"
    )


def _partition_numbers(texts: Sequence[str]) -> list[int]:
    for text in texts:
        if not (text.isascii() and text.isdigit() and len(text) < 10):
            raise OffsetsRefusedError(f"--partition {text[:100]}: a topic's partition is a number from 0 on")
    return [int(text) for text in texts]


def _change_sink(store: ConnectorOffsets, moves: list[SinkMove], dry_run: bool, as_json: bool) -> None:
    if not dry_run:
        store.set_sink(moves)
    rows: list[dict[str, Any]] = [
        {
            "topic": m.topic,
            "partition": m.partition,
            "before": m.before,
            "after": m.after,
            "first": m.span.first,
            "end": m.span.end,
            "effect": m.effect,
        }
        for m in moves
    ]
    _print_changes(rows, store.connector, dry_run, as_json)


def _change_source(store: ConnectorOffsets, moves: list[SourceMove], dry_run: bool, as_json: bool) -> None:
    if not dry_run:
        store.set_source(moves)
    rows: list[dict[str, Any]] = [dict(m._asdict()) for m in moves]
    if as_json:
        rows = [{k: None if v is None else json.loads(v) for k, v in row.items()} for row in rows]
    _print_changes(rows, store.connector, dry_run, as_json)


def _print_changes(rows: list[dict[str, Any]], connector: str, dry_run: bool, as_json: bool) -> None:
    if as_json:
        for row in rows:
            typer.echo(json.dumps({"connector": connector, **row, "changed": not dry_run}))
    else:
        _print_table(rows)
    say("dry run: nothing was changed" if dry_run else f"the offsets of {connector} are set")


def _print_table(rows: Sequence[dict[str, Any]]) -> None:
    if not rows:
        return
    table = Table(*rows[0], box=None, padding=(0, 2, 0, 0))
    for row in rows:
        table.add_row(*(Text("-" if cell is None else str(cell), overflow="fold") for cell in row.values()))
    Console(highlight=False).print(table)
