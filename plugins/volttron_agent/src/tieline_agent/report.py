"""Reads a worker's log, one JSON object per line, and keeps the state of its connectors."""

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


# Keys that are in the text already, or that the agent's log adds.
_SHOWN = ("event", "connector", "level", "logger", "timestamp", "ledger", "exception")


class Line(NamedTuple):
    """A line for the agent's own log."""

    level: int
    text: str


class Report:
    """The state of one run of a worker. ``connectors`` has the last known state of each by name."""

    def __init__(self) -> None:
        self.connectors: dict[str, dict[str, Any]] = {}
        self.started = False
        self._last: deque[str] = deque(maxlen=5)

    @property
    def failed(self) -> dict[str, str]:
        """The connectors that have failed, with the reason."""
        states = self.connectors.items()
        return {name: str(state.get("trace", "")) for name, state in states if state.get("state") == "FAILED"}

    @property
    def last_lines(self) -> str:
        """The last lines except progress, which show why the worker ended."""
        return "\n".join(self._last)

    def take(self, text: str) -> Line:
        """Read a line of the output and return it for the agent's log."""
        try:
            event = json.loads(text)
        except ValueError:
            event = None
        if not isinstance(event, dict) or "event" not in event:
            self._last.append(text)
            return Line(logging.INFO, text)
        self._update(event)
        level = _LEVELS.get(str(event.get("level")), logging.INFO)
        if event["event"] == "progress":
            level = logging.DEBUG  # the status has the numbers
        words = ": ".join(str(event[key]) for key in ("connector", "event") if event.get(key) is not None)
        if level >= logging.WARNING:
            details = [f"{key}={event[key]}" for key in event if key not in _SHOWN and event[key] is not None]
            words += f" ({', '.join(details)})" if details else ""
            self._last.append(words)
        return Line(level, words)

    def _update(self, event: dict[str, Any]) -> None:
        ledger, connector = event.get("ledger"), event.get("connector")
        if isinstance(ledger, dict):
            self.connectors = ledger
        elif event["event"] == "started" and isinstance(event.get("connectors"), list):
            self.started = True
            self.connectors = {
                str(name): {"state": "RUNNING"} for name in event["connectors"]
            } | self.connectors
        elif event.get("state") == "FAILED" and connector:
            previous = self.connectors.get(connector, {})
            self.connectors = {
                **self.connectors,
                connector: {**previous, "state": "FAILED", "trace": str(event["event"])},
            }
