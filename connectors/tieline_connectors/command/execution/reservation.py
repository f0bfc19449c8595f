"""Devices that an actuator (VOLTTRON 8, 9, 10) keeps for us while a command is written."""

from __future__ import annotations

import math
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime, timedelta, timezone
from typing import Any, Protocol

from tieline_connectors.volttron_bus.vip.client import BusMessage
from tieline_connectors.volttron_bus.vip.jsonrpc import to_short_text

ANNOUNCED = "devices/actuators/schedule/announce/"
"""Where an actuator announces, as soon as a reservation is made, who has the device and for how long."""
_SLACK = 30.0
"""Seconds that a first reservation begins in the past, for a platform whose clock is behind ours."""
_ROUNDED = 2.0
"""Seconds: an actuator ends a reservation at a whole second, a moment later."""
_A_WRITE = 1.0
"""Seconds of a reservation for each write."""
_LONGEST_GRACE = 86_400.0


class DeviceRefused(Exception):
    """The platform answered with an error: this very call was not done."""


class Taken(DeviceRefused):
    """The device is reserved. ``until``: when that ends, as the actuator says, if it does.

    ``ours``: by a connection of ours that was lost.
    """

    def __init__(
        self, message: str, device: str, until: datetime | None = None, *, ours: bool = False
    ) -> None:
        super().__init__(message)
        self.device = device
        self.until = until
        self.ours = ours


class Actuator(Protocol):
    """What a reservation needs of a platform."""

    def ask(self, method: str, *args: Any) -> Any:
        """Call the actuator. Raises ``Away``, ``DeviceRefused``, ``Uncertain``."""

    def hear(self, prefix: str) -> AbstractContextManager[Callable[[], Sequence[BusMessage]]]:
        """Subscribe for as long as the context is open; the function returns what has arrived."""

    def is_ours(self, identity: str) -> bool:
        """Whether an identity is one that we use, or have used before a reconnect."""


class Reservation:
    """Used by one thread. Each device is reserved by itself: a conflict belongs to the device that has it.

    It lasts for as long as its writes need, and ends by itself. ``priority``: HIGH, LOW or LOW_PREEMPT;
    ``timeout``: seconds that one answer may take.
    """

    def __init__(self, actuator: Actuator | None, priority: str, timeout: float) -> None:
        """``actuator`` is ``None`` where the driver takes writes: then nothing is reserved."""
        self._actuator = actuator
        self._priority = priority
        self._timeout = timeout
        self._tasks: list[str] = []
        self._ends: dict[str, datetime] = {}
        self._free_at = 0.0
        self.keeper = ""
        """Who still has a device for its grace time."""

    @property
    def wait(self) -> float:
        """Seconds until the devices are really ours: a preempted task keeps its own for a grace time."""
        return max(0.0, self._free_at - time.monotonic())

    def cover(self, devices: Sequence[str], writes: int) -> None:
        """Make sure that these devices are reserved for so many writes from now, or from the grace time on.

        One of the answers may take the longest; if others are slow, too, this extends it before the next.
        Raises `Taken`, ``DeviceRefused``, ``Away``, ``Uncertain``; what was reserved before stays so.
        """
        if self._actuator is None:
            return
        seconds = self._timeout + _A_WRITE * writes
        for device in devices:
            while self._left(device) < self.wait + seconds:
                self._request(self._actuator, device, self.wait + seconds)

    def release(self) -> None:
        """End it early. What cannot be ended now ends by itself."""
        tasks, self._tasks = self._tasks, []
        self._ends.clear()
        if self._actuator is None:
            return
        for task in tasks:
            try:
                self._actuator.ask("request_cancel_schedule", "", task)
            except Exception:  # each kind says the same here: nobody has confirmed it
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
        self._tasks.append(task)  # also if no answer comes
        if self._priority == "HIGH" and device not in self._ends:
            with actuator.hear(f"{ANNOUNCED}{device}") as heard:
                answer = actuator.ask("request_new_schedule", "", task, self._priority, [slot])
                self._note_grace(actuator, device, heard())
        else:
            answer = actuator.ask("request_new_schedule", "", task, self._priority, [slot])
        if not isinstance(answer, dict) or answer.get("result") != "SUCCESS":
            self._tasks.remove(task)
            raise _refusal(actuator, device, answer)
        self._ends[device] = end

    def _note_grace(self, actuator: Actuator, device: str, heard: Sequence[BusMessage]) -> None:
        for message in heard:
            keeper, window = message.headers.get("requesterID"), message.headers.get("window")
            if message.topic != f"{ANNOUNCED}{device}" or not isinstance(keeper, str):
                continue
            if isinstance(window, (int, float)) and math.isfinite(window) and not actuator.is_ours(keeper):
                self.keeper = to_short_text(keeper)
                grace = min(max(0.0, float(window)), _LONGEST_GRACE) + _ROUNDED
                self._free_at = max(self._free_at, time.monotonic() + grace)


def _refusal(actuator: Actuator, device: str, answer: Any) -> DeviceRefused:
    """Say who has the device and until when: the actuator's answer has it in ``data``."""
    if not isinstance(answer, dict):
        return DeviceRefused(f"{device} cannot be reserved: {to_short_text(answer)}")
    info = to_short_text(answer.get("info"))
    if "CONFLICT" not in info:
        return DeviceRefused(f"{device} cannot be reserved: {info or to_short_text(answer.get('data'))}")
    holders = list(_holders(answer.get("data")))
    if holders and all(actuator.is_ours(agent) for agent, *_ in holders):
        until = max(end for *_, end in holders)
        told = f"{device} is still reserved by our last connection until {_clock(until)}"
        return Taken(told, device, until, ours=True)
    theirs = [holder for holder in holders if not actuator.is_ours(holder[0])]
    if not theirs:
        return Taken(f"{device} is reserved by another agent, and the actuator does not say by which", device)
    agent, task, start, end = max(theirs, key=lambda holder: holder[3])
    since = f"from {_clock(start)} " if start > datetime.now(timezone.utc) else ""
    holder = f"{to_short_text(agent)} (task {to_short_text(task)})"
    return Taken(f"{device} is reserved by {holder} {since}until {_clock(end)}", device, end)


def _holders(data: Any) -> Any:
    """Yield (agent, task, start, end) from ``{agent: {task: [[device, start, end], …]}}``."""
    for agent, tasks in data.items() if isinstance(data, Mapping) else ():
        for task, slots in tasks.items() if isinstance(tasks, Mapping) else ():
            for slot in slots if isinstance(slots, list) else ():
                try:
                    _, start, end = slot
                    yield agent, task, _time(start), _time(end)
                except (TypeError, ValueError, OverflowError):
                    continue


def _time(text: str) -> datetime:
    found = datetime.fromisoformat(text)
    return found if found.tzinfo is not None else found.astimezone()


def _clock(moment: datetime) -> str:
    return moment.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
