"""Where records are shown: lines of JSON for programs, rows for people. Neither lets a control through."""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Iterable
from typing import Any, Protocol

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tieline.cli.consuming.decoder import Decoded, DisplayRecord
from tieline.cli.printable import json_text, printable, time_text

_LONGEST = 4_000
"""Characters of a value in a row; JSON lines have all of it."""


class Screen(Protocol):
    """Shows records."""

    def show(self, batch: Iterable[DisplayRecord]) -> None:
        """At once: nothing is held back. Raises ``BrokenPipeError`` when nobody reads any more."""


class Lines:
    """A line of JSON a record, UTF-8 whatever the locale."""

    def show(self, batch: Iterable[DisplayRecord]) -> None:
        """See ``Screen.show``."""
        text = "".join(json_text(seen.as_json()) + "\n" for seen in batch)
        sys.stdout.buffer.write(text.encode())
        sys.stdout.buffer.flush()


class Rows:
    """Time, place, key and value; what comes later has the same columns."""

    def __init__(self) -> None:
        self._console = Console(highlight=False)
        self._first = True

    def show(self, batch: Iterable[DisplayRecord]) -> None:
        """See ``Screen.show``."""
        rows = [row(seen) for seen in batch]
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


def row(seen: DisplayRecord) -> tuple[str, str, str, str]:
    """The cells of a row; ``place`` is partition@offset."""
    value = _cell(seen.value)
    if seen.value.schema is not None:
        value = f"{seen.value.schema} {value}"
    if seen.value.error is not None:
        value = f"{value} ({seen.value.error})"
    time = time_text(seen.timestamp)
    return time, f"{seen.partition}@{seen.offset}", printable(_cell(seen.key)), printable(value)


def stdout_closed() -> bool:
    """Whether standard output is a pipe whose reader is gone."""
    poller = select.poll()
    try:
        poller.register(sys.stdout.fileno(), 0)
    except (OSError, ValueError):
        return False
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poller.poll(0))


def silence_stdout() -> None:
    """After a broken pipe: what Python would flush at its exit goes nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _cell(decoded: Decoded) -> str:
    text = _text_of(decoded.data)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}… ({len(text) - _LONGEST} more)"


def _text_of(data: Any) -> str:
    if isinstance(data, bytes):
        return f"0x{data[:_LONGEST].hex()}"
    return data if isinstance(data, str) else json_text(data)
