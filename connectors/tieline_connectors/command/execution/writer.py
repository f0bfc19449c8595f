"""Read, write and revert points at the platform; nothing is decided here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import NamedTuple

from tieline_connectors.command.execution.conditions import ConditionMonitor
from tieline_connectors.command.execution.errors import DeviceRefusedError, UnavailableError, UncertainError
from tieline_connectors.command.execution.platform_client import Platform
from tieline_connectors.command.execution.reservation import Reservation
from tieline_connectors.command.model.command import Command
from tieline_connectors.command.model.facts import Reading, reading_of
from tieline_connectors.command.model.point import split
from tieline_connectors.command.rules.decisions import CallResult, Readings
from tieline_connectors.command.rules.verdict import same_value

_HIGH, _LOW = 8, 12
"""BACnet's priorities as the actuator's words: up to 8 HIGH, up to 12 LOW, then LOW_PREEMPT."""


class Permit(NamedTuple):
    """Whether a write may be sent now, for how many more seconds, and the monotonic time in microseconds."""

    allows: Callable[[], bool]
    seconds_left: Callable[[], float]
    now: Callable[[], int]

    @classmethod
    def until(cls, deadline: int, allows: Callable[[], bool], monitor: ConditionMonitor) -> Permit:
        """Return a permit that ends at a deadline on the monotonic clock, in microseconds."""

        def now() -> int:
            return monitor.now().monotonic

        return cls(allows, lambda: (deadline - now()) / 1_000_000, now)


def read(platform: Platform, points: Iterable[str]) -> dict[str, Reading | None]:
    """Return what each point reads now; ``None`` if the platform answers that it cannot be read.

    Raises ``UnavailableError`` and ``UncertainError``: if no answer comes, nothing may be written.
    """
    readings: dict[str, Reading | None] = {}
    for point in points:
        try:
            readings[point] = reading_of(platform.get(point))
        except DeviceRefusedError:
            readings[point] = None
    return readings


def try_read(platform: Platform, points: Iterable[str]) -> dict[str, Reading | None]:
    """Return what each point reads now; ``None`` if it cannot be read, for whatever reason.

    After a read without an answer nothing more is read of that device: other commands wait for this one.
    """
    readings: dict[str, Reading | None] = {}
    silent: set[str] = set()
    for point in points:
        readings[point] = None
        device = split(point)[0]
        if device not in silent:
            try:
                readings |= read(platform, [point])
            except (UnavailableError, UncertainError):
                silent.add(device)
    return readings


def reserve(platform: Platform, command: Command, points: Sequence[str]) -> Reservation:
    """Reserve the devices of these points for their writes; raises as `Platform.reserve`."""
    return platform.reserve(devices_of(command, points), _actuator_priority(command.priority), len(points))


def devices_of(command: Command, points: Sequence[str]) -> list[str]:
    """Return the devices of these points, in the same order for all commands."""
    return sorted({w.device for w in command.writes if w.point in points})


def write(
    platform: Platform,
    command: Command,
    before: Readings,
    permit: Permit,
    reservation: Reservation,
) -> dict[str, CallResult]:
    """Make the writes of a command in their order, up to the first that fails.

    ``permit``: checked as the last thing before each write is sent.
    """
    calls = {w.point: CallResult("NOT_SENT") for w in command.writes}
    for number, w in enumerate(command.writes):
        points = [later.point for later in command.writes[number:]]
        failure = _prepare(platform, command, points, permit, reservation)
        if failure is not None:
            calls[w.point] = failure
            break
        if command.action == "REVERT" or w.value is None:
            calls[w.point] = _call(partial(platform.revert, w.point), permit)
        else:
            calls[w.point] = _call(partial(platform.set, w.point, w.value), permit)
        if calls[w.point].answer == "REFUSED":
            calls[w.point] = _check_refusal(platform, command, w.point, calls[w.point], before)
        if calls[w.point].answer != "DONE":
            break
    return calls


def revert(
    platform: Platform,
    command: Command,
    points: Sequence[str],
    permit: Permit,
    reservation: Reservation,
) -> dict[str, CallResult]:
    """Revert these points of a command, each one even if another fails; ``permit`` as for `write`."""
    calls: dict[str, CallResult] = {}
    for number, point in enumerate(points):
        failure = _prepare(platform, command, points[number:], permit, reservation)
        calls[point] = failure or _call(partial(platform.revert, point), permit)
    return calls


def _prepare(
    platform: Platform, command: Command, points: Sequence[str], permit: Permit, reservation: Reservation
) -> CallResult | None:
    """Make sure that the device is reserved, that its agents answer, and that the permit still allows it.

    Returns why the next write cannot be sent, ``None`` if it can.
    """
    try:
        if (left := permit.seconds_left()) > 0:
            reservation.ensure(devices_of(command, points), len(points))
            platform.ping_agents(left)
    except (UnavailableError, UncertainError) as error:  # the reservation or a ping: nothing was written
        return CallResult("NOT_SENT", str(error))
    except DeviceRefusedError as error:
        return CallResult("REFUSED", str(error))
    return None if permit.allows() else CallResult("NOT_SENT", "its time was over before it was sent")


def _call(call: Callable[[], None], permit: Permit) -> CallResult:
    try:
        call()
    except UnavailableError as error:
        return CallResult("NOT_SENT", str(error))
    except DeviceRefusedError as error:
        return CallResult("REFUSED", str(error))
    except UncertainError as error:
        return CallResult("NO_ANSWER", str(error))
    return CallResult("DONE", at=permit.now())


def _check_refusal(
    platform: Platform, command: Command, point: str, call: CallResult, before: Readings
) -> CallResult:
    """Return the call, or NO_ANSWER if the point shows that the refused write may have happened.

    A driver may write, and then fail to read back: its error proves nothing unless the point agrees.
    """
    old = before.get(point)
    if old is None:  # it could not be read before either: only the platform's answer is known
        return call
    new = try_read(platform, [point])[point]
    wanted = next(w.value for w in command.writes if w.point == point)
    changed = new is None or (same_value(wanted, new.value, command.tolerance) and new != old)
    return CallResult("NO_ANSWER", call.reason) if changed else call


def _actuator_priority(priority: int | None) -> str:
    if priority is None or _HIGH < priority <= _LOW:
        return "LOW"
    return "HIGH" if priority <= _HIGH else "LOW_PREEMPT"
