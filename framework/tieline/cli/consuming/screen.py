"""Printing records: lines of JSON for programs, rows for people, without control characters."""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Iterable
from typing import Any, Protocol

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tieline.topics.decoder import Decoded, DisplayRecord
from tieline.topics.printable import json_text, printable, time_text

_MAX_CHARACTERS = 4_000
"""Characters of a value in a row; lines of JSON hold the whole value."""


class RecordPrinter(Protocol):
    """Prints records."""

    def show(self, batch: Iterable[DisplayRecord]) -> None:
        """Print a batch at once. Raises ``BrokenPipeError`` if the reader of standard output is gone."""


class JsonLines:
    """A line of JSON per record, in UTF-8 for any locale."""

    def show(self, batch: Iterable[DisplayRecord]) -> None:
        """Print a batch at once; see ``RecordPrinter.show``."""
        text = "".join(json_text(record.as_json()) + "\n" for record in batch)
        sys.stdout.buffer.write(text.encode())
        sys.stdout.buffer.flush()


class TableRows:
    """Prints rows of time, place, key and value. Later batches continue the same columns."""

    def __init__(self) -> None:
        self._console = Console(highlight=False)
        self._first = True

    def show(self, batch: Iterable[DisplayRecord]) -> None:
        """Print a batch at once; see ``RecordPrinter.show``."""
        rows = [row(record) for record in batch]
        if not rows:
            return
        table = Table(box=None, show_header=self._first, padding=(0, 2, 0, 0), expand=True)
        table.add_column("time (UTC)", width=24, no_wrap=True)
        table.add_column("place", width=9, overflow="fold")
        table.add_column("key", ratio=1, overflow="fold")
        table.add_column("value", ratio=3, overflow="fold")
        for cells in rows:
            table.add_row(*map(Text, cells))
        self._console.print(table)
        sys.stdout.flush()
        self._first = False


def row(record: DisplayRecord) -> tuple[str, str, str, str]:
    """Return the cells of a row; ``place`` is partition@offset."""
    value = _cell(record.value)
    if record.value.schema is not None:
        value = f"{record.value.schema} {value}"
    if record.value.error is not None:
        value = f"{value} ({record.value.error})"
    time = time_text(record.timestamp)
    return time, f"{record.partition}@{record.offset}", printable(_cell(record.key)), printable(value)


def stdout_closed() -> bool:
    """Return whether standard output is a pipe whose reader is gone."""
    poller = select.poll()
    try:
        poller.register(sys.stdout.fileno(), 0)
    except (OSError, ValueError):
        return False
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poller.poll(0))


def silence_stdout() -> None:
    """Discard what Python would flush at its exit. Called after a broken pipe."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _cell(decoded: Decoded) -> str:
    text = _text_of(decoded.data)
    return (
        text
        if len(text) <= _MAX_CHARACTERS
        else f"{text[:_MAX_CHARACTERS]}… ({len(text) - _MAX_CHARACTERS} more)"
    )


def _text_of(data: Any) -> str:
    if isinstance(data, bytes):
        return f"0x{data[:_MAX_CHARACTERS].hex()}"
    return data if isinstance(data, str) else json_text(data)
