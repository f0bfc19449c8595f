"""How commands and results look: a line each, in colour where there is a terminal, or JSON."""

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
    """Where results go (stdout), and what is said beside (stderr)."""

    def __init__(self, as_json: bool = False) -> None:
        self._as_json = as_json
        # Lines are for other programs too: they are not broken where no terminal is.
        self._out = Console(highlight=False, soft_wrap=True)
        self._beside = Console(stderr=True, highlight=False, soft_wrap=True)

    def result(self, value: Mapping[str, Any], before: str) -> None:
        """One result; ``before`` stands at the beginning of its line."""
        if self._as_json:
            typer.echo(json_line(value))
            return
        state = str(value.get("state"))
        line = Text(f"{printable(before)}  ")
        line.append(f"{printable(state):<{_WIDTH}}", style=_STYLES.get(state, "bold red"))
        line.append(f"  {printable(told(value))}".rstrip())
        self._out.print(line)

    def say(self, sentence: str, style: str = "") -> None:
        """Something for the person at the keyboard, not for a program behind a pipe."""
        self._beside.print(Text(printable(sentence), style=style))


def told(value: Mapping[str, Any]) -> str:
    """What happened to each point, and why."""
    parts = [_write(write) for write in value.get("writes") or () if isinstance(write, Mapping)]
    if value.get("dry_run"):
        parts.append("(dry run)")
    code, reason = value.get("reason_code"), value.get("reason")
    if code or reason:
        parts.append(": ".join(str(part) for part in (code, reason) if part))
    return "  ".join(parts)


def _write(write: Mapping[str, Any]) -> str:
    asked = f"{write.get('point')}={_value(write.get('requested'))}"
    outcome = write.get("outcome")
    if outcome in (None, "NOT_WRITTEN"):
        return asked
    return f"{asked} ({_value(write.get('previous'))} → {_value(write.get('actual'))}, {outcome})"


def _value(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


def time_of(microseconds: Any) -> str:
    """A time of a result, in UTC."""
    try:
        found = dt.datetime.fromtimestamp(microseconds / 1_000_000, dt.timezone.utc)
    except (TypeError, ValueError, OverflowError, OSError):
        return "?"
    return f"{found:%Y-%m-%d %H:%M:%S}.{found.microsecond // 1000:03d}"


def json_line(value: Mapping[str, Any]) -> str:
    """A result as one line of JSON; bytes in base64."""
    text = json.dumps(value, default=lambda found: base64.b64encode(found).decode())
    return text.replace("\x7f", "\\u007f")


def printable(text: str) -> str:
    """The text with nothing in it that moves a cursor."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
