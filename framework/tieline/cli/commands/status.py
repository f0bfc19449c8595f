"""``tieline status``: what a worker's folder holds, looked at from beside the running worker."""

from __future__ import annotations

import datetime as dt
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from tieline.api import StartupError
from tieline.cli.printable import printable

_NO_WORKER = "no worker runs"


def status(
    folder: Annotated[Path, typer.Argument(help="The worker's data.dir.")],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of tables.")] = False,
) -> None:
    """Show connectors, topics, readers and spools of a worker's folder; the worker may be running.

    Only reads. What a connector's state is the worker has written down last; NOT CONNECTED: it runs, and
    what it needs is not there. The lines below the connectors say since when and why, and why a connector
    FAILED. A topic's lag is what a reader (a sink's consumer group) has not committed yet; what waits in a
    spool has not been acknowledged by the broker yet; a quarantine holds what could not be parsed.
    """
    found = look(folder)
    if as_json:
        typer.echo(json.dumps(found))
        return
    console = Console()
    if found["connectors"]:
        console.print(_of_connectors(found["connectors"]))
        for line in lines(found["connectors"], time.time()):
            typer.echo(line)
    topics = _table("local log", "topic", "partition", "first", "next", "records")
    for row in found["topics"]:
        topics.add_row(*(Text(str(row[name])) for name in ("topic", "partition", "first", "next", "records")))
    readers = _table("readers", "reader", "topic", "partition", "committed", "lag")
    for row in found["readers"]:
        readers.add_row(
            *(Text(str(row[name])) for name in ("reader", "topic", "partition", "committed")),
            Text(_number(row["lag"])),
        )
    spools = _table("spools", "spool", "waiting", "bytes", "quarantined")
    for row in found["spools"]:
        spools.add_row(*(Text(str(row[name])) for name in ("spool", "waiting", "bytes", "quarantined")))
    for table in (topics, readers, spools):
        if table.row_count:
            console.print(table)


def lines(connectors: Sequence[Mapping[str, Any]], now: float) -> Iterator[str]:
    """Yield what is wrong with each connector, a line each. ``now``: seconds since 1970."""
    for row in connectors:
        name = printable(row["connector"])
        if row["trace"]:
            yield f"{name} FAILED: {_one_line(row['trace'])}"
        ended = row["state"] == _NO_WORKER
        until = (row["written"] or 0) / 1000 if ended else now
        for outage in row["not_connected"]:
            was = "was not connected" if ended else "not connected"
            since = _since(outage["since"], until, now)
            yield f"{name} {was} to {_one_line(outage['to'])} since {since}: {_one_line(outage['because'])}"


def _since(since: str, until: float, now: float) -> str:
    """Return a time in the local zone, with its date unless that is today, and how long it lasted."""
    from tieline.runtime.task.connections import span_text

    try:
        begin = dt.datetime.fromisoformat(since).astimezone()
        today = dt.datetime.fromtimestamp(now).date() == begin.date()
    except (ValueError, OverflowError, OSError):  # a clock that was wrong
        return since
    shown = begin.strftime("%H:%M:%S" if today else "%Y-%m-%d %H:%M:%S")
    return f"{shown} ({span_text(max(0.0, until - begin.timestamp()))})"


def _one_line(text: str) -> str:
    return printable(" ".join(line.strip() for line in text.splitlines()))


def _of_connectors(rows: Sequence[Mapping[str, Any]]) -> Table:
    table = _table("connectors", "connector", "state", "received", "delivered", "lag")
    for row in rows:
        table.add_row(
            *(Text(str(row[name])) for name in ("connector", "state", "received", "delivered")),
            Text(_number(row["lag"]) if row["type"] == "sink" else ""),
        )
    return table


def _table(title: str, *columns: str) -> Table:
    """Return a table whose long values continue on the next line instead of being cut."""
    return Table(*(Column(name, overflow="fold") for name in columns), title=title)


def _number(value: int | None) -> str:
    return "unknown" if value is None else str(value)


def look(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """The same as data. Raises ``StartupError`` where the folder holds nothing of a worker."""
    from tieline.broker.local.store import Store
    from tieline.runtime.worker.status_file import statuses

    log, spools = folder / "log.db", sorted((folder / "spools").glob("*.db"))
    workers = list(statuses(folder))
    if not log.exists() and not spools and not workers:
        raise StartupError(f"{folder} holds no log and no spool; give the data.dir of a worker's settings")
    found: dict[str, list[dict[str, Any]]] = {"connectors": [], "topics": [], "readers": [], "spools": []}
    for worker in workers:
        found["connectors"] += _connectors(worker)
    if log.exists():
        with Store(log, owner=False) as store:
            bounds = store.snapshot()
            for at, there in sorted(bounds.items()):
                found["topics"].append({**at._asdict(), "first": there.start, "next": there.end,
                                        "records": there.end - there.start})  # fmt: skip
            for group in store.groups():
                for at, offset in sorted(store.committed(group).items()):
                    end = bounds[at].end if at in bounds else -1
                    lag = end - offset if offset <= end else None  # committed for a topic that is gone
                    found["readers"].append(
                        {"reader": group, **at._asdict(), "committed": offset, "lag": lag}
                    )
    for path in spools:
        with Store(path, owner=False) as store:
            (waiting, size), (quarantined, _) = store.size("spool"), store.size("quarantine")
        found["spools"].append(
            {"spool": path.stem, "waiting": waiting, "bytes": size, "quarantined": quarantined}
        )
    return found


def _connectors(worker: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """A row for each connector of what a worker has written down."""
    connectors = worker.get("connectors")
    for name, ledger in sorted(connectors.items()) if isinstance(connectors, dict) else ():
        outages = ledger.get("not_connected", [])
        state = ledger.get("state") if worker["running"] else _NO_WORKER
        yield {
            "connector": name,
            "worker": worker.get("pid"),
            "written": worker.get("written"),
            "state": "NOT CONNECTED" if state == "RUNNING" and outages else state,
            **{key: ledger.get(key) for key in ("type", "received", "delivered", "trace")},
            "lag": ledger.get("lag") if worker["running"] else None,
            "not_connected": outages,
        }
