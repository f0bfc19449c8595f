"""``tieline status``: what is in a worker's folder, read beside the running worker."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from tieline.api import StartupError
from tieline.topics.printable import printable

if TYPE_CHECKING:
    from tieline.broker.backend import Backend

_NO_WORKER = "no worker runs"
_TIMEOUT = 10.0
_COPIED = (
    "type",
    "received",
    "delivered",
    "totals",
    "topics",
    "trace",
    "attempts",
    "next_attempt_ms",
    "breaker",
)


def status(
    folder: Annotated[Path, typer.Argument(help="The worker's data.dir.")],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of tables.")] = False,
) -> None:
    """Show the connectors, topics, readers and spools in a worker's folder; the worker may be running.

    Changes nothing. A connector's state is the last one that its worker wrote. NOT CONNECTED: the connector
    runs, but a system that it needs is unavailable. The lines below the connectors say since when and why,
    and why a connector FAILED, or when it restarts. The lag of a reader (a sink's consumer group) is what
    it has not committed yet. What waits in a spool is not acknowledged by the broker yet. A quarantine holds
    input that could not be parsed.
    """
    state = look(folder)
    if as_json:
        typer.echo(json.dumps(state))
        return
    console = Console()
    if state["connectors"]:
        console.print(_connector_table(state["connectors"]))
        for line in lines(state["connectors"], time.time()):
            typer.echo(line)
    topics = _table("local log", "topic", "partition", "first", "next", "records")
    for row in state["topics"]:
        topics.add_row(*(Text(str(row[name])) for name in ("topic", "partition", "first", "next", "records")))
    readers = _table("readers", "reader", "topic", "partition", "committed", "lag")
    for row in state["readers"]:
        readers.add_row(
            *(Text(str(row[name])) for name in ("reader", "topic", "partition", "committed")),
            Text(_number(row["lag"])),
        )
    spools = _table("spools", "spool", "waiting", "bytes", "quarantined")
    for row in state["spools"]:
        spools.add_row(*(Text(str(row[name])) for name in ("spool", "waiting", "bytes", "quarantined")))
    for table in (topics, readers, spools):
        if table.row_count:
            console.print(table)


def lines(connectors: Sequence[Mapping[str, Any]], now: float) -> Iterator[str]:
    """Yield a line for each problem of each connector. ``now``: seconds since 1970."""
    from tieline.runtime.errors.traces import split_trace

    for row in connectors:
        name = printable(row["connector"])
        ended = row["state"] == _NO_WORKER
        if row["trace"]:
            sentence, traceback = split_trace(row["trace"])
            state = "RESTARTING" if row["state"] == "RESTARTING" else "FAILED"
            yield f"{name} {state}: {_one_line(sentence)}"
            yield from (f"  {printable(line)}" for line in traceback.splitlines())
            if not ended and (next_step := _next_attempt(row, now)):
                yield f"{name} {next_step}"
        until = (row["written"] or 0) / 1000 if ended else now
        if mismatch := (row.get("totals") or {}).get("mismatch"):
            yield f"{name} has a ledger that differs from its committed offsets by {mismatch} records"
        for outage in row["not_connected"]:
            was = "was not connected" if ended else "not connected"
            since = _since(outage["since"], until, now)
            yield f"{name} {was} to {_one_line(outage['to'])} since {since}: {_one_line(outage['because'])}"


def _next_attempt(row: Mapping[str, Any], now: float) -> str:
    """Return what becomes of a connector that has failed; empty if only an operator can help."""
    from tieline.times import local_time, span_text

    due, is_open = row.get("next_attempt_ms"), row.get("breaker") == "open"
    restarts = f"after {row.get('attempts')} restarts"
    if due is None:
        return f"has an open breaker {restarts}; only a restart of the worker closes it" if is_open else ""
    when = f"{local_time(due, now * 1000)} (in {span_text(max(0.0, due / 1000 - now))})"
    return f"has an open breaker {restarts}, until {when}" if is_open else f"restarts at {when}, {restarts}"


def _since(since: str, until: float, now: float) -> str:
    """Return a time in the local zone, with its date unless that is today, and how long it lasted."""
    from tieline.times import iso_ms, local_time, span_text

    begin = iso_ms(since)
    if begin is None:  # a clock that was wrong
        return since
    return f"{local_time(begin, now * 1000)} ({span_text(max(0.0, until - begin / 1000))})"


def _one_line(text: str) -> str:
    return printable(" ".join(line.strip() for line in text.splitlines()))


def _connector_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    table = _table("connectors", "connector", "state", "received", "delivered", "lag", "behind")
    for row in rows:
        table.add_row(
            *(Text(str(row[name])) for name in ("connector", "state", "received", "delivered")),
            Text(_number(row["lag"]) if row["type"] == "sink" else ""),
            Text(_behind(row["lag_seconds"]) if row["type"] == "sink" else ""),
        )
    return table


def _table(title: str, *columns: str) -> Table:
    """Return a table whose long values continue on the next line instead of being cut."""
    return Table(*(Column(name, overflow="fold") for name in columns), title=title)


def _behind(seconds: float | None) -> str:
    from tieline.times import span_text

    return "unknown" if seconds is None else span_text(seconds)


def _number(value: int | None) -> str:
    return "unknown" if value is None else str(value)


def look(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Return the same as data. Raises ``StartupError`` if the folder holds nothing of a worker."""
    from tieline.broker.backend import Backend
    from tieline.runtime.spool.sizes import spool_sizes
    from tieline.runtime.worker.status_file import statuses

    log = Backend(folder)
    spools = [size._asdict() for size in spool_sizes(folder / "spools")]
    workers = list(statuses(folder))
    if log.is_missing and not spools and not workers:
        raise StartupError(f"{folder} holds no log and no spool; give the data.dir of a worker's settings")
    connectors = [row for worker in workers for row in _connectors(worker)]
    topics, readers = ([], []) if log.is_missing else _topics_and_readers(log)
    return {"connectors": connectors, "topics": topics, "readers": readers, "spools": spools}


def _topics_and_readers(log: Backend) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return a row for each partition of a local log, and a row for each committed offset."""
    readers = []
    with closing(log.open(owner=False)) as broker:
        offsets = broker.offsets
        spans = offsets.spans(broker.topic_names(), _TIMEOUT)
        for group in offsets.groups(_TIMEOUT):
            for partition, committed in sorted(offsets.group(group, _TIMEOUT).committed.items()):
                end = spans[partition].end if partition in spans else -1
                lag = end - committed if committed <= end else None  # the topic was deleted
                readers.append({"reader": group, **partition._asdict(), "committed": committed, "lag": lag})
    topics = [
        {**partition._asdict(), "first": first, "next": end, "records": end - first}
        for partition, (first, end) in sorted(spans.items())
    ]
    return topics, readers


def _connectors(worker: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield a row for each connector in a worker's status file."""
    connectors = worker.get("connectors")
    for name, stats in sorted(connectors.items()) if isinstance(connectors, dict) else ():
        outages = stats.get("not_connected", [])
        state = stats.get("state") if worker["running"] else _NO_WORKER
        yield {
            "connector": name,
            "worker": worker.get("pid"),
            "written": worker.get("written"),
            "state": "NOT CONNECTED" if state == "RUNNING" and outages else state,
            **{key: stats.get(key) for key in _COPIED},
            "lag": stats.get("lag") if worker["running"] else None,
            "lag_seconds": stats.get("lag_seconds") if worker["running"] else None,
            "not_connected": outages,
        }
