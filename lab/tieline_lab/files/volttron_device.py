"""A device of the lab: points that change at every reading, and a file that records every write.

It runs in VOLTTRON's environment, within the platform driver. Its settings are in tieline_lab/driver.py.
"""

from __future__ import annotations

import datetime
import json
import math
import os
from collections.abc import Callable
from typing import Any

# A move returns a point's next value from (its first value, its value, number of the reading, all values).
MOVES: dict[str, Callable[[Any, Any, int, dict[str, Any]], Any]] = {
    "none": lambda first, now, n, values: now,
    "count": lambda first, now, n, values: first + n,
    "ramp": lambda first, now, n, values: first + 0.25 * n,
    "sine": lambda first, now, n, values: round(first + 10 * math.sin(2 * math.pi * n / 60), 6),
    "toggle": lambda first, now, n, values: (n // 10) % 2 == 0,
    # Each reading is a tenth nearer to the set point, so that the effect of a command can be seen.
    "follow": lambda first, now, n, values: round(now + 0.1 * (values["ZoneTemperatureSetPoint"] - now), 6),
}
TYPES = {"bool": bool, "int": int, "float": float, "string": str}


class Device:
    """One device. ``readings`` counts how often all its points were read since the driver's start."""

    def __init__(self, name: str, write_log: str) -> None:
        self.name = name
        self.readings = 0
        self.values: dict[str, Any] = {}
        self._first: dict[str, Any] = {}
        self._moves: dict[str, Callable[..., Any]] = {}
        self._types: dict[str, type] = {}
        self._writable: set[str] = set()
        self._write_log = write_log

    def add(self, point: str, kind: str, first: Any, move: str, writable: bool) -> type:
        """Add a point; return its Python type."""
        self._types[point] = TYPES[kind]
        self._moves[point] = MOVES[move]
        self._first[point] = self.values[point] = first
        if writable:
            self._writable.add(point)
        return TYPES[kind]

    def read(self) -> dict[str, Any]:
        """Give every point its next value, and return all values."""
        self.readings += 1
        for point, move in self._moves.items():
            self.values[point] = move(self._first[point], self.values[point], self.readings, self.values)
        return self.values

    def write(self, point: str, value: Any, options: dict[str, Any]) -> Any:
        """Write a point; return its new value. ``options`` are the call's other arguments (a priority)."""
        if point not in self._writable:
            raise OSError(f"{point} is read-only")
        point_type = self._types[point]
        if point_type is float and type(value) is int:
            value = float(value)
        if type(value) is not point_type:
            raise ValueError(f"{point} takes a {point_type.__name__}, not a {type(value).__name__}")
        self._record("set", point, value, options)
        self.values[point] = value
        return value

    def revert(self, point: str, options: dict[str, Any]) -> None:
        """Give a writable point its first value again, which is recorded as a write, too."""
        self._record("revert", point, self._first[point], options)
        self.values[point] = self._first[point]

    def revert_all(self, options: dict[str, Any]) -> None:
        """Revert every writable point."""
        for point in sorted(self._writable):
            self.revert(point, options)

    def _record(self, kind: str, point: str, value: Any, options: dict[str, Any]) -> None:
        now = datetime.datetime.now(datetime.timezone.utc).isoformat()
        line = {"time": now, "device": self.name, "point": point, "value": value, "kind": kind}
        if "priority" in options:
            line["priority"] = options["priority"]
        file = os.open(self._write_log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(file, json.dumps(line).encode() + b"\n")
        finally:
            os.close(file)
