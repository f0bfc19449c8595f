"""The lab in a terminal: the state of the connectors, the last readings, the last commands."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from tieline.topics.printable import printable
from tieline_connectors.points.questions import StoreUnavailableError
from tieline_lab import comparison
from tieline_lab.driver import POINTS
from tieline_lab.stage import Stage
from tieline_lab.worker import LabWorker, count_spooled

_DEVICES = 4
"""How many devices fit side by side."""


def render_hints(stage: Stage) -> RenderableType:
    """Return where things are and what to try; shown once, before the table."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    program = _shorten(Path(sys.executable).with_name("tieline"))
    worker_file = _shorten(stage.options.config / "worker.yaml")
    mongo = stage.servers.mongo
    query = f"{program} query {f'--worker {worker_file}' if mongo is None else f'--uri {mongo.uri}'}"
    table.add_row("open the pages", Text(stage.pages, style="bold"))
    table.add_row(f"query {stage.store.name}", f"{query} --topic {stage.readings_topics[0]}")
    table.add_row("", f"{query} --follow")
    point = f"{stage.options.driver.topics()[0]}/ZoneTemperatureSetPoint"
    send = f"{program} command send --worker {worker_file}"
    table.add_row("send a command", f"{send} {point} 75")
    history = f"{program} command history --worker {worker_file}"
    table.add_row("command history", history if mongo is None else f"{query} --history to-cloud")
    table.add_row(
        "command policy", f"{_shorten(stage.options.config / 'policy.yaml')}, re-read at every change"
    )
    table.add_row(
        "worker", f"{_shorten(stage.options.config)} (its files), {_shorten(stage.worker.log)} (its log)"
    )
    table.add_row("writes", f"{_shorten(stage.servers.platform.write_log)}: every write to a device (✎)")
    table.add_row("all files", f"{_shorten(stage.options.folder)}, kept until the next start")
    return Group("", table, "")


def render_table(stage: Stage, seconds: float, height: int) -> RenderableType:
    """Return the current state, ``seconds`` after the first reading. It fits into 80 × 24 characters.

    ``height`` is the number of lines of the terminal. A higher terminal shows more commands.
    """
    title = Text(f"VOLTTRON → {stage.broker} → {stage.store.name}, for {seconds:.0f} s", style="bold")
    title.append("   Ctrl-C stops everything", style="dim")
    readings, connectors = _render_readings(stage), render_connectors(stage.worker)
    # Title, counts, two headers and an empty line take five lines.
    free_lines = height - connectors.row_count - readings.row_count - 5
    commands = _render_commands(stage, max(1, min(free_lines, 12)))
    return Group(title, connectors, _render_counts(stage), "", readings, commands)


def render_line(stage: Stage, seconds: float) -> str:
    """Return the current state in one line, for a log."""
    ledgers = stage.worker.ledgers
    lags = [ledgers[name]["lag"] for name in stage.worker.connectors.sinks if name in ledgers]
    lag = _format_number(None if None in lags else max(lags, default=0))
    bus = ledgers.get("bus")
    return (
        f"{seconds:.0f} s: {stage.observer.seen.total()} seen, {count_spooled(bus) if bus else 0} received, "
        f"{_count_stored(stage)} {stage.store.unit}; lag {lag}, spool {bus['spool_records'] if bus else 0}; "
        f"{len(stage.exchange.commands)} commands, {len(stage.servers.platform.writes())} writes"
    )


def render_connectors(worker: LabWorker) -> Table:
    """Return a table with a row per connector."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("connector", min_width=16)
    table.add_column("state")
    for name in ("in/s", "out/s", "total", "lag", "spool", "duplicates", "dropped"):
        table.add_column(name, justify="right")
    for name in (*worker.connectors.names, *worker.added):
        ledger = worker.ledgers.get(name)
        if ledger is None:
            table.add_row(name, Text("STARTING", style="yellow"))
            continue
        sink, spool = ledger["type"] == "sink", "spool_records" in ledger
        table.add_row(
            printable(name),
            Text(ledger["state"], style="green" if ledger["state"] == "RUNNING" else "bold red"),
            f"{worker.rate(count_spooled if spool else _get_received, name):.1f}",
            f"{worker.rate(_get_delivered, name):.1f}",
            str(ledger["delivered"]),
            _format_number(ledger["lag"]) if sink else "",
            _format_number(ledger["spool_records"]) if spool else "",
            str(ledger["counters"].get("duplicates", 0)) if sink else "",
            _render_alarm(comparison.count_dropped([ledger])),
        )
    return table


def _render_counts(stage: Stage) -> Text:
    seen, writes = stage.observer.seen.total(), len(stage.servers.platform.writes())
    commands, unended = len(stage.exchange.commands), len(stage.exchange.unended)
    return Text(
        f"seen on the bus: {seen}; commands: {commands}, not ended: {unended}; writes at devices: {writes}",
        style="dim",
    )


def _render_commands(stage: Stage, number: int) -> RenderableType:
    """Return the last commands, the newest first: time, issuer, value and result."""
    latest = stage.exchange.latest(number)
    if not latest:
        return Text("no command yet; see 'send a command' above", style="dim")
    table = Table.grid(padding=(0, 1))
    for style in ("dim", "", "", "", "dim"):
        table.add_column(style=style, no_wrap=True, overflow="ellipsis")
    for command, result in latest:
        table.add_row(*map(printable, _describe_command(command)), *_render_result(result))
    return table


def _describe_command(command: Mapping[str, Any]) -> tuple[str, str, str]:
    issued_at = datetime.fromtimestamp(command["issued_at"] / 1e6, timezone.utc)
    first, *others = command["writes"] or [{"point": "–", "value": None}]
    point = "/".join(first["point"].split("/")[-2:])
    value = "revert" if first["value"] is None else json.dumps(first["value"], ensure_ascii=False)
    return f"{issued_at:%H:%M:%S}", command["issuer"], f"{point} ← {value}{' …' if others else ''}"


def _render_result(result: Mapping[str, Any] | None) -> tuple[Text, str]:
    if result is None:
        return Text("sent", style="yellow"), ""
    style = "green" if result["state"] in ("SUCCEEDED", "HOLD_ENDED") else "yellow"
    return Text(result["state"], style=style), printable(result["reason_code"])


def _render_readings(stage: Stage) -> Table:
    devices = stage.options.driver.topics()[:_DEVICES]
    hidden = stage.options.driver.devices - len(devices)
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column(f"last in {stage.store.name}{f', {hidden} more' if hidden else ''}", min_width=23)
    table.add_column("")
    for device in devices:
        table.add_column(device.rpartition("/")[2], justify="right", min_width=9)
    try:
        readings = [stage.store.last_reading(device) or {} for device in devices]
    except StoreUnavailableError as error:
        table.add_row(Text(str(error), style="red", no_wrap=True, overflow="ellipsis"))
        return table
    table.add_row("time (UTC)", "", *(_format_time(reading) for reading in readings))
    for point in POINTS:
        values = [_format_value(reading.get("points", {}).get(point.name)) for reading in readings]
        table.add_row(
            f"{point.name}{' ✎' if point.writable else ''}", Text(point.units, style="dim"), *values
        )
    return table


def _count_stored(stage: Stage) -> str:
    try:
        return str(stage.store.count())
    except StoreUnavailableError:
        return "?"


def _shorten(path: Path) -> str:
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative


def _get_received(ledger: Mapping[str, Any]) -> int:
    number: int = ledger["received"]
    return number


def _get_delivered(ledger: Mapping[str, Any]) -> int:
    number: int = ledger["delivered"]
    return number


def _format_number(value: int | None) -> str:
    return "?" if value is None else str(value)


def _render_alarm(number: int) -> Text:
    return Text(str(number), style="bold red" if number else "")


def _format_time(reading: Mapping[str, Any]) -> str:
    return f"{reading['time']:%H:%M:%S}" if "time" in reading else "–"


def _format_value(value: Any) -> str:
    return "–" if value is None else f"{value:.2f}" if isinstance(value, float) else str(value)
