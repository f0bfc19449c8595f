"""The lab in a terminal: how the connectors are, what the devices last said, where to look."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pymongo.errors import PyMongoError
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from tieline_lab import comparison
from tieline_lab.driver import POINTS
from tieline_lab.stage import Stage
from tieline_lab.worker import CONNECTORS, SINKS, LabWorker, spooled

_DEVICES = 4
"""So many have room beside each other."""


def whereabouts(stage: Stage) -> RenderableType:
    """What does not change: shown once, before the picture."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    query = f"{_short(Path(sys.executable).with_name('tieline'))} query --uri {stage.mongo.uri}"
    table.add_row("ask MongoDB", f"{query} --topic {stage.readings_topics[0]}")
    table.add_row("", f"{query} --follow")
    table.add_row("worker", f"{_short(stage.config)} (what it runs), {_short(stage.worker.log)}")
    table.add_row("writes", f"{_short(stage.platform.write_log)}: every write to a device (✎)")
    table.add_row("all files", f"{_short(stage.folder)}, kept until the next start")
    return Group("", table, "")


def picture(stage: Stage, seconds: float) -> RenderableType:
    """What changes, as it is now; ``seconds`` since the first reading. Fits into 80 × 24."""
    title = Text(f"VOLTTRON → {stage.broker} → MongoDB, for {seconds:.0f} s", style="bold")
    title.append("   Ctrl-C stops everything", style="dim")
    seen, writes = stage.observer.seen.total(), len(stage.platform.writes())
    beside = Text(f"seen on the bus by an observer: {seen}; writes at devices: {writes}", style="dim")
    return Group(title, "", connectors(stage.worker), beside, "", _values(stage))


def line(stage: Stage, seconds: float) -> str:
    """The same in one line, for a log."""
    ledgers = stage.worker.ledgers
    lag = max((ledgers[name]["lag"] or 0 for name in SINKS if name in ledgers), default=0)
    bus = ledgers.get("bus")
    return (
        f"{seconds:.0f} s: {stage.observer.seen.total()} seen, {spooled(bus) if bus else 0} in, "
        f"{_documents(stage)} documents; lag {lag}, spool {bus['spool_records'] if bus else 0}"
    )


def connectors(worker: LabWorker) -> Table:
    """A row a connector."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("connector", min_width=16)
    table.add_column("state")
    for name in ("in/s", "out/s", "total", "lag", "spool", "duplicates", "dropped"):
        table.add_column(name, justify="right")
    for name in CONNECTORS:
        ledger = worker.ledgers.get(name)
        if ledger is None:
            table.add_row(name, Text("STARTING", style="yellow"))
            continue
        sink = name in SINKS
        table.add_row(
            name,
            Text(ledger["state"], style="green" if ledger["state"] == "RUNNING" else "bold red"),
            f"{worker.rate(_received if sink else spooled, name):.1f}",
            f"{worker.rate(_delivered, name):.1f}",
            str(ledger["delivered"]),
            _number(ledger["lag"]) if sink else "",
            "" if sink else str(ledger["spool_records"]),
            str(ledger["counters"].get("duplicates", 0)) if sink else "",
            _alarming(comparison.dropped([ledger])),
        )
    return table


def _values(stage: Stage) -> RenderableType:
    devices = stage.settings.topics()[:_DEVICES]
    try:
        readings = [stage.last_reading(device) or {} for device in devices]
    except PyMongoError as error:
        return Text(f"MongoDB does not answer: {error}", style="red")
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("last in MongoDB", min_width=23)
    table.add_column("")
    for device in devices:
        table.add_column(device.rpartition("/")[2], justify="right", min_width=9)
    table.add_row("time (UTC)", "", *(_time(reading) for reading in readings))
    for point in POINTS:
        values = [_value(reading.get("points", {}).get(point.name)) for reading in readings]
        table.add_row(
            f"{point.name}{' ✎' if point.writable else ''}", Text(point.units, style="dim"), *values
        )
    more = stage.settings.devices - len(devices)
    return Group(table, Text(f"and {more} more devices", style="dim")) if more else table


def _documents(stage: Stage) -> str:
    try:
        return str(stage.documents("cloudagent"))
    except PyMongoError:
        return "?"


def _short(path: Path) -> str:
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative


def _received(ledger: Mapping[str, Any]) -> int:
    number: int = ledger["received"]
    return number


def _delivered(ledger: Mapping[str, Any]) -> int:
    number: int = ledger["delivered"]
    return number


def _number(value: int | None) -> str:
    return "?" if value is None else str(value)


def _alarming(number: int) -> Text:
    return Text(str(number), style="bold red" if number else "")


def _time(reading: Mapping[str, Any]) -> str:
    return f"{reading['time']:%H:%M:%S}" if "time" in reading else "–"


def _value(value: Any) -> str:
    return "–" if value is None else f"{value:.2f}" if isinstance(value, float) else str(value)
