"""``tieline status``: what a worker's folder holds, looked at from beside the running worker."""

from __future__ import annotations

import json
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
    """Show topics, readers and spools of a worker's folder; the worker may be running.

    Only reads. A topic's lag is what a reader (a sink's consumer group) has not committed yet; what waits
    in a spool has not been acknowledged by the broker yet; a quarantine holds what could not be parsed.
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
    for table in (topics, readers, spools):
        if table.row_count:
            console.print(table)


def look(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """The same as data. Raises ``RefuseToStart`` where the folder holds nothing of a worker."""
    from tieline.broker.local.store import Store

    log, spools = folder / "log.db", sorted((folder / "spools").glob("*.db"))
    if not log.exists() and not spools:
        raise RefuseToStart(f"{folder} holds no log and no spool; give the data.dir of a worker's settings")
    found: dict[str, list[dict[str, Any]]] = {"topics": [], "readers": [], "spools": []}
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
