"""What is abnormal about commands: holds, unknown ends, kill switches, clocks."""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import islice
from typing import Any
from urllib.parse import quote

from tieline.api.pages import Alarm, PageContext
from tieline_connectors.command.pages.follower import CommandFollower
from tieline_connectors.command.pages.plant import is_clock_doubted
from tieline_connectors.command.pages.plants import Plants

_ALARM_US = 3600 * 1_000_000
_CLOCK = (
    "The clock was set, and it is unknown which time is right: commands wait. Set the clock right; if it is,"
    " confirm it with tieline command clock trust AUDIT_FILE."
)


class CommandAlarms:
    """Collects the alarms. One thread calls it."""

    def __init__(self, context: PageContext, plants: Plants, follower: CommandFollower) -> None:
        self._context = context
        self._plants = plants
        self._follower = follower
        self._first_seen: dict[str, int] = {}

    def current(self) -> Sequence[Alarm]:
        """Return unpaid holds, unknown ends of the last hour, engaged kill switches, and clocks in doubt."""
        now = time.time_ns() // 1000
        alarms = []
        with self._follower.book() as book:
            for life in book.holds():
                if life.hold_problem:
                    text = f"A hold could not be ended: {life.hold_problem}. It is retried until it is."
                    alarms.append(_alarm("hold", life.command_id, "critical", life.points, text, life.at))
            for life in islice(book.newest(), 1000):
                end = life.end
                if end is not None and end["state"] == "UNKNOWN" and now - life.at < _ALARM_US:
                    text = "It is unknown whether a command was executed. Check the device."
                    alarms.append(_alarm("unknown", life.command_id, "critical", life.points, text, life.at))
        return [*alarms, *self._plant_alarms(now // 1000)]

    def _plant_alarms(self, now_ms: int) -> list[Alarm]:
        """Return what is abnormal about the sinks themselves, each since it was first seen."""
        ledgers = self._context.ledgers()
        alarms: list[Alarm] = []
        for plant in self._plants:
            if (reason := plant.killed()) is not None:
                text = f"The kill switch is engaged, and nothing is written: {reason}"
                alarms.append(self._since(f"kill.{plant.name}", "warning", plant.name, text, now_ms))
            if is_clock_doubted(ledgers.get(plant.name, {})):
                subject = f"clock of this computer ({plant.name})"
                alarms.append(self._since(f"clock.{plant.name}", "critical", subject, _CLOCK, now_ms))
        keys = {alarm.key for alarm in alarms}
        self._first_seen = {key: since for key, since in self._first_seen.items() if key in keys}
        return alarms

    def _since(self, key: str, severity: Any, subject: str, text: str, now_ms: int) -> Alarm:
        since_ms = self._first_seen.setdefault(key, now_ms)
        return Alarm(key, severity, subject, text, since_ms, "/command-sinks")


def _alarm(kind: str, command_id: str, severity: Any, points: Sequence[str], text: str, at: int) -> Alarm:
    path = f"/commands/{quote(command_id, safe='')}"
    return Alarm(f"{kind}.{command_id}", severity, ", ".join(points)[:200], text, at // 1000, path)
