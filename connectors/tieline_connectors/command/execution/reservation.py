"""Reserve devices at an actuator (VOLTTRON 8, 9, 10) while a command is written."""

from __future__ import annotations

import logging
import math
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime, timedelta, timezone
from typing import Any, Protocol

from tieline_connectors.command.execution.errors import (
    DeviceRefusedError,
    DeviceReservedError,
    UnavailableError,
    UncertainError,
)
from tieline_connectors.volttron_bus.vip.client import BusMessage
from tieline_connectors.volttron_bus.vip.jsonrpc import to_short_text

log = logging.getLogger(__name__)

ANNOUNCEMENTS = "devices/actuators/schedule/announce/"
"""The topic prefix under which an actuator announces each new reservation: its holder and its duration."""
_SLACK = 30.0
"""Seconds by which a first reservation starts in the past, for a platform whose clock is behind ours."""
_ROUNDED = 2.0
"""Seconds: an actuator ends a reservation at a whole second, a moment later."""
_PER_WRITE = 1.0
"""Seconds of a reservation for each write."""
_LONGEST_GRACE = 86_400.0


class Actuator(Protocol):
    """What a reservation needs of a platform."""

    def call_actuator(self, method: str, *args: Any) -> Any:
        """Call the actuator. Raises ``UnavailableError``, ``DeviceRefusedError``, ``UncertainError``."""

    def subscribe(self, prefix: str) -> AbstractContextManager[Callable[[], Sequence[BusMessage]]]:
        """Subscribe while the context is open; the yielded function returns what has arrived."""

    def is_ours(self, identity: str) -> bool:
        """Return whether an identity is ours, now or before a reconnect."""


class Reservation:
    """Reserves each device separately: a conflict belongs to one device. Used by one thread.

    A reservation lasts for as long as its writes need, and ends by itself. ``priority``: HIGH, LOW or
    LOW_PREEMPT; ``timeout``: seconds that one answer may take.
    """

    def __init__(self, actuator: Actuator | None, priority: str, timeout: float) -> None:
        """``actuator`` is ``None`` if writes go to the driver: then nothing is reserved."""
        self._actuator = actuator
        self._priority = priority
        self._timeout = timeout
        self._tasks: list[str] = []
        self._ends: dict[str, datetime] = {}
        self._free_at = 0.0
        self.holder = ""
        """The agent that still keeps a device for its grace time."""

    @property
    def wait(self) -> float:
        """Seconds until the devices can be used: a preempted task keeps its device for a grace time."""
        return max(0.0, self._free_at - time.monotonic())

    def ensure(self, devices: Sequence[str], writes: int) -> None:
        """Make sure that these devices are reserved for that many writes, from now or from the grace time on.

        The time suffices if one answer takes the longest; if more are slow, the next call extends it. Raises
        `DeviceReservedError`, ``DeviceRefusedError``, ``UnavailableError``, ``UncertainError``; earlier
        reservations stay.
        """
        if self._actuator is None:
            return
        seconds = self._timeout + _PER_WRITE * writes
        for device in devices:
            while self._left(device) < self.wait + seconds:
                self._request(self._actuator, device, self.wait + seconds)

    def release(self) -> None:
        """End it early; what cannot be cancelled now ends by itself."""
        tasks, self._tasks = self._tasks, []
        self._ends.clear()
        if self._actuator is None:
            return
        for task in tasks:
            try:
                self._actuator.call_actuator("request_cancel_schedule", "", task)
            except (UnavailableError, UncertainError, DeviceRefusedError):
                return
            except Exception:
                log.exception("a reservation could not be cancelled; it ends by itself")
                return

    def _left(self, device: str) -> float:
        end = self._ends.get(device)
        return -1.0 if end is None else (end - datetime.now(timezone.utc)).total_seconds()

    def _request(self, actuator: Actuator, device: str, seconds: float) -> None:
        now = datetime.now(timezone.utc)
        start = self._ends.get(device, now - timedelta(seconds=_SLACK))
        end = now + timedelta(seconds=seconds + 0.5)
        task = f"tieline-{uuid.uuid4()}"
        slot = [device, start.isoformat(), end.isoformat()]
        self._tasks.append(task)  # even if no answer comes: the reservation may exist
        if self._priority == "HIGH" and device not in self._ends:
            with actuator.subscribe(f"{ANNOUNCEMENTS}{device}") as announced:
                answer = actuator.call_actuator("request_new_schedule", "", task, self._priority, [slot])
                self._read_grace_time(actuator, device, announced())
        else:
            answer = actuator.call_actuator("request_new_schedule", "", task, self._priority, [slot])
        if not isinstance(answer, dict) or answer.get("result") != "SUCCESS":
            self._tasks.remove(task)
            raise _refusal(actuator, device, answer)
        self._ends[device] = end

    def _read_grace_time(self, actuator: Actuator, device: str, announced: Sequence[BusMessage]) -> None:
        for message in announced:
            holder, window = message.headers.get("requesterID"), message.headers.get("window")
            if message.topic != f"{ANNOUNCEMENTS}{device}" or not isinstance(holder, str):
                continue
            if isinstance(window, (int, float)) and math.isfinite(window) and not actuator.is_ours(holder):
                self.holder = to_short_text(holder)
                grace = min(max(0.0, float(window)), _LONGEST_GRACE) + _ROUNDED
                self._free_at = max(self._free_at, time.monotonic() + grace)


def _refusal(actuator: Actuator, device: str, answer: Any) -> DeviceRefusedError:
    """Return an error that names the holder and the end: the actuator's answer has them in ``data``."""
    if not isinstance(answer, dict):
        return DeviceRefusedError(f"{device} cannot be reserved: {to_short_text(answer)}")
    info = to_short_text(answer.get("info"))
    if "CONFLICT" not in info:
        return DeviceRefusedError(f"{device} cannot be reserved: {info or to_short_text(answer.get('data'))}")
    holders = list(_holders(answer.get("data")))
    if holders and all(actuator.is_ours(agent) for agent, *_ in holders):
        until = max(end for *_, end in holders)
        message = f"{device} is still reserved by our last connection until {_format_time(until)}"
        return DeviceReservedError(message, device, until, ours=True)
    others = [holder for holder in holders if not actuator.is_ours(holder[0])]
    if not others:
        return DeviceReservedError(
            f"{device} is reserved by another agent, and the actuator does not say by which", device
        )
    agent, task, start, end = max(others, key=lambda holder: holder[3])
    since = f"from {_format_time(start)} " if start > datetime.now(timezone.utc) else ""
    holder = f"{to_short_text(agent)} (task {to_short_text(task)})"
    message = f"{device} is reserved by {holder} {since}until {_format_time(end)}"
    return DeviceReservedError(message, device, end)


def _holders(data: Any) -> Any:
    """Yield (agent, task, start, end) from ``{agent: {task: [[device, start, end], …]}}``."""
    for agent, tasks in data.items() if isinstance(data, Mapping) else ():
        for task, slots in tasks.items() if isinstance(tasks, Mapping) else ():
            for slot in slots if isinstance(slots, list) else ():
                try:
                    _, start, end = slot
                    yield agent, task, _parse_time(start), _parse_time(end)
                except (TypeError, ValueError, OverflowError):
                    continue


def _parse_time(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo is not None else moment.astimezone()


def _format_time(moment: datetime) -> str:
    return moment.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
