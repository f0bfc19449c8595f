"""What a worker tells of itself: the lines of its log, one JSON object each."""

from __future__ import annotations

import json
import logging
from collections import deque
from typing import Any, NamedTuple

_LEVELS = {
    "debug": logging.DEBUG,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "critical": logging.CRITICAL,
}


# What a line says already, or what its reader's own log adds.
_SAID = ("event", "connector", "level", "logger", "timestamp", "ledger", "exception")


class Line(NamedTuple):
    """A line for the agent's own log."""

    level: int
    text: str


class Report:
    """What is known of one run of a worker. ``connectors``: the last that was told of each, by name."""

    def __init__(self) -> None:
        self.connectors: dict[str, dict[str, Any]] = {}
        self.started = False
        self._last: deque[str] = deque(maxlen=5)

    @property
    def failed(self) -> dict[str, str]:
        """The connectors that have failed, and why."""
        states = self.connectors.items()
        return {name: str(told.get("trace", "")) for name, told in states if told.get("state") == "FAILED"}

    @property
    def last_words(self) -> str:
        """The last lines that were no progress, for the cause of an end."""
        return "\n".join(self._last)

    def take(self, text: str) -> Line:
        """Take in a line of the output."""
        try:
            told = json.loads(text)
        except ValueError:
            told = None
        if not isinstance(told, dict) or "event" not in told:
            self._last.append(text)
            return Line(logging.INFO, text)
        self._note(told)
        level = _LEVELS.get(str(told.get("level")), logging.INFO)
        if told["event"] == "progress":
            level = logging.DEBUG  # the figures are in the status
        words = ": ".join(str(told[key]) for key in ("connector", "event") if told.get(key) is not None)
        if level >= logging.WARNING:
            more = [f"{key}={told[key]}" for key in told if key not in _SAID and told[key] is not None]
            words += f" ({', '.join(more)})" if more else ""
            self._last.append(words)
        return Line(level, words)

    def _note(self, told: dict[str, Any]) -> None:
        ledger, connector = told.get("ledger"), told.get("connector")
        if isinstance(ledger, dict):
            self.connectors = ledger
        elif told["event"] == "started" and isinstance(told.get("connectors"), list):
            self.started = True
            self.connectors = {
                str(name): {"state": "RUNNING"} for name in told["connectors"]
            } | self.connectors
        elif told.get("state") == "FAILED" and connector:
            was = self.connectors.get(connector, {})
            self.connectors = {
                **self.connectors,
                connector: {**was, "state": "FAILED", "trace": str(told["event"])},
            }
