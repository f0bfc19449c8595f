"""Print commands and results: one line each, in colour on a terminal, or JSON."""

from __future__ import annotations

import base64
import datetime as dt
import json
from collections.abc import Mapping
from typing import Any

import typer
from rich.console import Console
from rich.text import Text

_STYLES = {
    "SUCCEEDED": "green",
    "HOLD_ENDED": "green",
    "ACCEPTED": "dim",
    "EXECUTING": "dim",
    "REJECTED": "yellow",
    "EXPIRED": "yellow",
    "HOLD_SKIPPED": "yellow",
}
_WIDTH = max(map(len, _STYLES))


class Screen:
    """Prints results to stdout, and messages to stderr."""

    def __init__(self, as_json: bool = False) -> None:
        self._as_json = as_json
        # Other programs read the lines too: they are not wrapped.
        self._out = Console(highlight=False, soft_wrap=True)
        self._messages = Console(stderr=True, highlight=False, soft_wrap=True)

    def result(self, value: Mapping[str, Any], before: str) -> None:
        """Print one result; ``before`` is the beginning of its line."""
        if self._as_json:
            typer.echo(json_line(value))
            return
        state = str(value.get("state"))
        line = Text(f"{printable(before)}  ")
        line.append(f"{printable(state):<{_WIDTH}}", style=_STYLES.get(state, "bold red"))
        line.append(f"  {printable(describe(value))}".rstrip())
        self._out.print(line)

    def say(self, sentence: str, style: str = "") -> None:
        """Print a message for the operator, not for a program behind a pipe."""
        self._messages.print(Text(printable(sentence), style=style))


def describe(value: Mapping[str, Any]) -> str:
    """Return what happened to each point, and why."""
    parts = [_write(write) for write in value.get("writes") or () if isinstance(write, Mapping)]
    if value.get("dry_run"):
        parts.append("(dry run)")
    code, reason = value.get("reason_code"), value.get("reason")
    if code or reason:
        parts.append(": ".join(str(part) for part in (code, reason) if part))
    return "  ".join(parts)


def _write(write: Mapping[str, Any]) -> str:
    requested = f"{write.get('point')}={_value(write.get('requested'))}"
    outcome = write.get("outcome")
    if outcome in (None, "NOT_WRITTEN"):
        return requested
    return f"{requested} ({_value(write.get('previous'))} → {_value(write.get('actual'))}, {outcome})"


def _value(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


def time_of(microseconds: Any) -> str:
    """Return a time of a result, in UTC."""
    try:
        time = dt.datetime.fromtimestamp(microseconds / 1_000_000, dt.timezone.utc)
    except (TypeError, ValueError, OverflowError, OSError):
        return "?"
    return f"{time:%Y-%m-%d %H:%M:%S}.{time.microsecond // 1000:03d}"


def json_line(value: Mapping[str, Any]) -> str:
    """Return a result as one line of JSON; bytes are base64."""
    text = json.dumps(value, default=lambda value: base64.b64encode(value).decode())
    return text.replace("\x7f", "\\u007f")


def printable(text: str) -> str:
    """Return the text without characters that move a cursor."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
