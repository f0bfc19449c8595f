"""What is done at the platform: look at points, write them, give them back; nothing is decided here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import NamedTuple

from tieline_connectors.command.execution.platform import Away, DeviceRefused, Platform, Uncertain
from tieline_connectors.command.execution.reservation import Reservation
from tieline_connectors.command.model.command import Command
from tieline_connectors.command.model.facts import Reading, reading_of
from tieline_connectors.command.model.point import split
from tieline_connectors.command.rules.decisions import Call, Readings
from tieline_connectors.command.rules.verdict import same

_HIGH, _LOW = 8, 12
"""BACnet's levels to the actuator's words: up to 8 HIGH, up to 12 LOW, then LOW_PREEMPT."""


class Permit(NamedTuple):
    """Whether a write may be sent now, for how many seconds yet, and the monotonic time in microseconds."""

    holds: Callable[[], bool]
    left: Callable[[], float]
    now: Callable[[], int]


def read(platform: Platform, points: Iterable[str]) -> dict[str, Reading | None]:
    """Return what each point reads now; ``None`` where the platform answers that it cannot be read.

    Raises ``Away`` and ``Uncertain``: where no answer comes, nothing may be written.
    """
    found: dict[str, Reading | None] = {}
    for point in points:
        try:
            found[point] = reading_of(platform.get(point))
        except DeviceRefused:
            found[point] = None
    return found


def look(platform: Platform, points: Iterable[str]) -> dict[str, Reading | None]:
    """Return what each point reads now; ``None`` where it cannot be read, for whatever reason.

    After a read without an answer nothing more is read of that device: others wait behind this.
    """
    found: dict[str, Reading | None] = {}
    silent: set[str] = set()
    for point in points:
        found[point] = None
        device = split(point)[0]
        if device not in silent:
            try:
                found |= read(platform, [point])
            except (Away, Uncertain):
                silent.add(device)
    return found


def reserve(platform: Platform, command: Command, points: Sequence[str]) -> Reservation:
    """Reserve the devices of these points for their writes; raises as `Platform.reserve`."""
    return platform.reserve(devices_of(command, points), _word(command.priority), len(points))


def devices_of(command: Command, points: Sequence[str]) -> list[str]:
    """The devices of these points, in one order for all commands."""
    return sorted({w.device for w in command.writes if w.point in points})


def write(
    platform: Platform,
    command: Command,
    before: Readings,
    permit: Permit,
    reservation: Reservation,
) -> dict[str, Call]:
    """Do what the command asks for, in its order, up to the first write that does not work.

    ``permit``: asked when all else is done, as the last thing before each write is sent.
    """
    calls = {w.point: Call("NOT_SENT") for w in command.writes}
    for number, w in enumerate(command.writes):
        points = [later.point for later in command.writes[number:]]
        refused = _ready(platform, command, points, permit, reservation)
        if refused is not None:
            calls[w.point] = refused
            break
        if command.action == "REVERT" or w.value is None:
            calls[w.point] = _called(partial(platform.revert, w.point), permit)
        else:
            calls[w.point] = _called(partial(platform.set, w.point, w.value), permit)
        if calls[w.point].answer == "REFUSED":
            calls[w.point] = _certain(platform, command, w.point, calls[w.point], before)
        if calls[w.point].answer != "DONE":
            break
    return calls


def give_back(
    platform: Platform,
    command: Command,
    points: Sequence[str],
    permit: Permit,
    reservation: Reservation,
) -> dict[str, Call]:
    """Revert these points of a command, whatever becomes of the others; ``permit`` as above."""
    calls: dict[str, Call] = {}
    for number, point in enumerate(points):
        refused = _ready(platform, command, points[number:], permit, reservation)
        calls[point] = refused or _called(partial(platform.revert, point), permit)
    return calls


def _ready(
    platform: Platform, command: Command, points: Sequence[str], permit: Permit, reservation: Reservation
) -> Call | None:
    """Why the next write cannot be sent; ``None``: its device is ours, its agents answer, and it may."""
    try:
        if (left := permit.left()) > 0:
            reservation.cover(devices_of(command, points), len(points))
            platform.be_sure(left)
    except (Away, Uncertain) as error:  # the reservation or a ping: nothing was written
        return Call("NOT_SENT", str(error))
    except DeviceRefused as error:
        return Call("REFUSED", str(error))
    return None if permit.holds() else Call("NOT_SENT", "its time was over before it")


def _called(call: Callable[[], None], permit: Permit) -> Call:
    try:
        call()
    except Away as error:
        return Call("NOT_SENT", str(error))
    except DeviceRefused as error:
        return Call("REFUSED", str(error))
    except Uncertain as error:
        return Call("NO_ANSWER", str(error))
    return Call("DONE", at=permit.now())


def _certain(platform: Platform, command: Command, point: str, call: Call, before: Readings) -> Call:
    """A driver may write, and then fail to read back: an error is a no only if the point says so too."""
    was = before.get(point)
    if was is None:  # it could not be read before either: the platform's word is all there is
        return call
    now = look(platform, [point])[point]
    wanted = next(w.value for w in command.writes if w.point == point)
    moved = now is None or (same(wanted, now.value, command.tolerance) and now != was)
    return Call("NO_ANSWER", call.reason) if moved else call


def _word(priority: int | None) -> str:
    if priority is None or _HIGH < priority <= _LOW:
        return "LOW"
    return "HIGH" if priority <= _HIGH else "LOW_PREEMPT"
