"""``tieline status``: what a worker's folder holds, looked at from beside the running worker."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tieline.api import RefuseToStart


def status(
    folder: Annotated[Path, typer.Argument(help="The worker's data.dir.")],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of tables.")] = False,
) -> None:
    """Show connectors, topics, readers and spools of a worker's folder; the worker may be running.

    Only reads. What a connector's state is the worker has written down last; NOT CONNECTED: it runs, and
    what it needs is not there, since when and why. A topic's lag is what a reader (a sink's consumer group)
    has not committed yet; what waits in a spool has not been acknowledged by the broker yet; a quarantine
    holds what could not be parsed.
    """
    found = look(folder)
    if as_json:
        typer.echo(json.dumps(found))
        return
    console = Console()
    topics = Table("topic", "partition", "first", "next", "records", title="local log")
    for row in found["topics"]:
        topics.add_row(*(Text(str(row[name])) for name in ("topic", "partition", "first", "next", "records")))
    readers = Table("reader", "topic", "partition", "committed", "lag", title="readers")
    for row in found["readers"]:
        readers.add_row(
            *(Text(str(row[name])) for name in ("reader", "topic", "partition", "committed")),
            Text("unknown" if row["lag"] is None else str(row["lag"])),
        )
    spools = Table("spool", "waiting", "bytes", "quarantined", title="spools")
    for row in found["spools"]:
        spools.add_row(*(Text(str(row[name])) for name in ("spool", "waiting", "bytes", "quarantined")))
    workers = Table("connector", "state", "received", "delivered", "lag", "not connected", title="connectors")
    for row in found["connectors"]:
        workers.add_row(
            *(Text(str(row[name])) for name in ("connector", "state", "received", "delivered", "lag")),
            Text("; ".join(f"{o['to']} since {o['since']}: {o['because']}" for o in row["not_connected"])),
        )
    for table in (workers, topics, readers, spools):
        if table.row_count:
            console.print(table)


def look(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """The same as data. Raises ``RefuseToStart`` where the folder holds nothing of a worker."""
    from tieline.broker.local.store import Store
    from tieline.runtime.status_file import statuses

    log, spools = folder / "log.db", sorted((folder / "spools").glob("*.db"))
    workers = list(statuses(folder))
    if not log.exists() and not spools and not workers:
        raise RefuseToStart(f"{folder} holds no log and no spool; give the data.dir of a worker's settings")
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
        state = ledger.get("state") if worker["running"] else "no worker runs"
        yield {
            "connector": name,
            "worker": worker.get("pid"),
            "written": worker.get("written"),
            "state": "NOT CONNECTED" if state == "RUNNING" and outages else state,
            **{key: ledger.get(key) for key in ("received", "delivered", "lag", "trace")},
            "not_connected": outages,
        }
