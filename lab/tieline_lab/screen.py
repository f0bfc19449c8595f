"""The lab in a terminal: how the connectors are, what the devices last said, where to look."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from pymongo.errors import PyMongoError
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from tieline.topics.printable import printable
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
    program = _short(Path(sys.executable).with_name("tieline"))
    query = f"{program} query --uri {stage.mongo.uri}"
    table.add_row("ask MongoDB", f"{query} --topic {stage.readings_topics[0]}")
    table.add_row("", f"{query} --follow")
    point = f"{stage.settings.topics()[0]}/ZoneTemperatureSetPoint"
    send = f"{program} command send --worker {_short(stage.config / 'worker.yaml')}"
    table.add_row("send a command", f"{send} {point} 75")
    table.add_row("its history", f"{query} --history to-cloud")
    table.add_row("who may send", f"{_short(stage.config / 'policy.yaml')}, read anew at every change")
    table.add_row("worker", f"{_short(stage.config)} (what it runs), {_short(stage.worker.log)}")
    table.add_row("writes", f"{_short(stage.platform.write_log)}: every write to a device (✎)")
    table.add_row("all files", f"{_short(stage.folder)}, kept until the next start")
    return Group("", table, "")


def picture(stage: Stage, seconds: float, height: int) -> RenderableType:
    """What changes, as it is now; ``seconds`` since the first reading. Fits into 80 × 24.

    ``height``: lines of the terminal. The more there are, the more commands are shown.
    """
    title = Text(f"VOLTTRON → {stage.broker} → MongoDB, for {seconds:.0f} s", style="bold")
    title.append("   Ctrl-C stops everything", style="dim")
    values, heading = _values(stage), connectors(stage.worker)
    left = height - heading.row_count - values.row_count - 5  # title, counts, two headers, an empty line
    return Group(title, heading, _counts(stage), "", values, _commands(stage, max(1, min(left, 12))))


def line(stage: Stage, seconds: float) -> str:
    """The same in one line, for a log."""
    ledgers = stage.worker.ledgers
    lags = [ledgers[name]["lag"] for name in SINKS if name in ledgers]
    lag = _number(None if None in lags else max(lags, default=0))
    bus = ledgers.get("bus")
    return (
        f"{seconds:.0f} s: {stage.observer.seen.total()} seen, {spooled(bus) if bus else 0} in, "
        f"{_documents(stage)} documents; lag {lag}, spool {bus['spool_records'] if bus else 0}; "
        f"{len(stage.exchange.commands)} commands, {len(stage.platform.writes())} writes"
    )


def connectors(worker: LabWorker) -> Table:
    """A row a connector."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("connector", min_width=16)
    table.add_column("state")
    for name in ("in/s", "out/s", "total", "lag", "spool", "duplicates", "dropped"):
        table.add_column(name, justify="right")
    for name in (*CONNECTORS, *worker.added):
        ledger = worker.ledgers.get(name)
        if ledger is None:
            table.add_row(name, Text("STARTING", style="yellow"))
            continue
        sink, spool = ledger["type"] == "sink", "spool_records" in ledger
        table.add_row(
            printable(name),
            Text(ledger["state"], style="green" if ledger["state"] == "RUNNING" else "bold red"),
            f"{worker.rate(spooled if spool else _received, name):.1f}",
            f"{worker.rate(_delivered, name):.1f}",
            str(ledger["delivered"]),
            _number(ledger["lag"]) if sink else "",
            _number(ledger["spool_records"]) if spool else "",
            str(ledger["counters"].get("duplicates", 0)) if sink else "",
            _alarming(comparison.dropped([ledger])),
        )
    return table


def _counts(stage: Stage) -> Text:
    seen, writes = stage.observer.seen.total(), len(stage.platform.writes())
    commands, underway = len(stage.exchange.commands), len(stage.exchange.unended)
    return Text(
        f"seen on the bus: {seen}; commands: {commands}, under way: {underway}; writes at devices: {writes}",
        style="dim",
    )


def _commands(stage: Stage, number: int) -> RenderableType:
    """The last commands, the newest first: when, who, what, and what became of it."""
    latest = stage.exchange.latest(number)
    if not latest:
        return Text("no command yet; above stands how to send one", style="dim")
    table = Table.grid(padding=(0, 1))
    for style in ("dim", "", "", "", "dim"):
        table.add_column(style=style, no_wrap=True, overflow="ellipsis")
    for command, told in latest:
        table.add_row(*map(printable, _command(command)), *_end(told))
    return table


def _command(command: Mapping[str, Any]) -> tuple[str, str, str]:
    at = datetime.fromtimestamp(command["issued_at"] / 1e6, timezone.utc)
    first, *more = command["writes"] or [{"point": "–", "value": None}]
    asked = "/".join(first["point"].split("/")[-2:])
    value = "back" if first["value"] is None else json.dumps(first["value"], ensure_ascii=False)
    return f"{at:%H:%M:%S}", command["issuer"], f"{asked} ← {value}{' …' if more else ''}"


def _end(told: Mapping[str, Any] | None) -> tuple[Text, str]:
    if told is None:
        return Text("sent", style="yellow"), ""
    style = "green" if told["state"] in ("SUCCEEDED", "HOLD_ENDED") else "yellow"
    return Text(told["state"], style=style), printable(told["reason_code"])


def _values(stage: Stage) -> Table:
    devices = stage.settings.topics()[:_DEVICES]
    more = stage.settings.devices - len(devices)
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column(f"last in MongoDB{f', {more} more' if more else ''}", min_width=23)
    table.add_column("")
    for device in devices:
        table.add_column(device.rpartition("/")[2], justify="right", min_width=9)
    try:
        readings = [stage.last_reading(device) or {} for device in devices]
    except PyMongoError as error:
        table.add_row(Text(f"it does not answer: {error}", style="red", no_wrap=True, overflow="ellipsis"))
        return table
    table.add_row("time (UTC)", "", *(_time(reading) for reading in readings))
    for point in POINTS:
        values = [_value(reading.get("points", {}).get(point.name)) for reading in readings]
        table.add_row(
            f"{point.name}{' ✎' if point.writable else ''}", Text(point.units, style="dim"), *values
        )
    return table


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
