"""What is done at the platform: look at points, write them, give them back; nothing is decided here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from functools import partial

from tieline_connectors.command.command import Command
from tieline_connectors.command.decisions import Call, Readings
from tieline_connectors.command.facts import Reading, reading_of
from tieline_connectors.command.platform import Away, DeviceRefused, Platform, Uncertain
from tieline_connectors.command.verdict import same

_HIGH, _LOW = 8, 12
"""BACnet's levels to the actuator's words: up to 8 HIGH, up to 12 LOW, then LOW_PREEMPT."""
_RESERVED = 60.0


def look(platform: Platform, points: Iterable[str]) -> dict[str, Reading | None]:
    """What each point reads now; none where it cannot be read, for whatever reason."""
    found: dict[str, Reading | None] = {}
    for point in points:
        try:
            found[point] = reading_of(platform.get(point))
        except (Away, DeviceRefused, Uncertain):
            found[point] = None
    return found


def write(
    platform: Platform, command: Command, before: Readings, may_write: Callable[[], bool]
) -> dict[str, Call]:
    """Do what the command asks for, in its order, up to the first write that does not work.

    ``may_write``: asked when all else is done, as the last thing before each write is sent.
    """
    calls = {w.point: Call("NOT_SENT") for w in command.writes}
    with ExitStack() as reserved:
        refused = _reserve(platform, command, list(calls), reserved)
        if refused is not None:
            others = refused if refused.answer == "NOT_SENT" else Call("NOT_SENT")
            return {**dict.fromkeys(calls, others), command.writes[0].point: refused}
        for w in command.writes:
            if not _now(platform, may_write):
                calls[w.point] = Call("NOT_SENT", "its time was over, or the platform was gone, before it")
                break
            if command.action == "REVERT" or w.value is None:
                calls[w.point] = _called(partial(platform.revert, w.point))
            else:
                calls[w.point] = _called(partial(platform.set, w.point, w.value))
            if calls[w.point].answer == "REFUSED":
                calls[w.point] = _certain(platform, command, w.point, calls[w.point], before)
            if calls[w.point].answer != "DONE":
                break
    return calls


def give_back(
    platform: Platform,
    command: Command,
    points: Sequence[str],
    may_write: Callable[[], bool] = lambda: True,
) -> dict[str, Call]:
    """Revert these points of a command, whatever becomes of the others; ``may_write`` as above."""
    calls: dict[str, Call] = {}
    with ExitStack() as reserved:
        refused = _reserve(platform, command, points, reserved) if points else None
        if refused is not None:
            return dict.fromkeys(points, refused)
        for point in points:
            if _now(platform, may_write):
                calls[point] = _called(partial(platform.revert, point))
            else:
                calls[point] = Call("NOT_SENT", "the platform was gone, or its claim over, before it")
    return calls


def _reserve(platform: Platform, command: Command, points: Sequence[str], reserved: ExitStack) -> Call | None:
    """Reserve the devices of these points, in one order for all; why nothing can be written, or none."""
    devices = sorted({w.device for w in command.writes if w.point in points})
    try:
        reserved.enter_context(platform.reserved(devices, _word(command.priority), _RESERVED))
    except (Away, Uncertain) as error:  # it may be reserved; nothing was written
        return Call("NOT_SENT", str(error))
    except DeviceRefused as error:
        return Call("REFUSED", str(error))
    return None


def _now(platform: Platform, may_write: Callable[[], bool]) -> bool:
    """The connection stands, which can take a while to see; and after that it may still be done."""
    try:
        platform.connect()
    except Away:
        return False
    return may_write()


def _called(call: Callable[[], None]) -> Call:
    try:
        call()
    except Away as error:
        return Call("NOT_SENT", str(error))
    except DeviceRefused as error:
        return Call("REFUSED", str(error))
    except Uncertain as error:
        return Call("NO_ANSWER", str(error))
    return Call("DONE")


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
