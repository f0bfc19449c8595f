"""How a hold ends, and why: the decisions about a debt; pure.

    hold_due ► may_give_back ► hold_outcome      after a crash in REVERTING: hold_after_crash

A hold is a debt until it is paid: the points were given back, a later command wrote them, or an operator
forgave it. A lock, an override, a device or a platform that is unavailable only makes it late.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from tieline_connectors.command.model.clock import Now
from tieline_connectors.command.model.command import Outcome, WriteResult
from tieline_connectors.command.model.facts import Reading
from tieline_connectors.command.model.ledger import CommandLedger, Entry
from tieline_connectors.command.rules.decisions import (
    Call,
    End,
    NotYet,
    Owed,
    Readings,
    Revert,
    Situation,
    Wait,
)
from tieline_connectors.command.rules.results import held, hold_ended, value_of
from tieline_connectors.command.rules.rules import clock_doubt, kill_switch
from tieline_connectors.command.rules.verdict import same


class Refusal(NamedTuple):
    """Why a device cannot be reserved, and until when, in microseconds, if that is known."""

    told: str
    until: int | None = None


FIRST_RETRY, LONGEST_RETRY = 1_000_000, 300_000_000
"""How long after a refusal a debt is tried again, doubled each time; microseconds."""


def hold_due(
    entry: Entry, ledger: CommandLedger, situation: Situation, early: bool = False
) -> Wait | NotYet | End | Revert:
    """The time of a hold is over: give its points back, unless a later command wrote them.

    It may be late; then it is done late. ``early``: the worker stops, and gives back what it holds. The
    kill switch holds this back too.
    """
    now = situation.now.wall
    doubt = clock_doubt(ledger, situation)
    if doubt is not None and not _is_exact(entry, situation.now):
        return doubt
    if entry.due_at is None or (entry.at(situation.now) < entry.due_at and not early):
        return NotYet(entry.due_at, "its hold has not ended")
    if entry.command_id in situation.terms.forgiven:
        return _forgiven(entry, now)
    if situation.killed is not None:
        return NotYet(None, kill_switch(situation.killed).sentence)
    points = tuple(w.point for w in held(entry) if not ledger.written_after(entry, w.point))
    if not points:
        return _skipped(entry, tuple(_given_back(entry, write, {}, {}, ledger) for write in held(entry)), now)
    claim = situation.now.monotonic + situation.terms.claim
    reverting = entry._replace(hold="REVERTING", reverting_at=entry.at(situation.now))
    return Revert(reverting, points, claim)


def _is_exact(entry: Entry, now: Now) -> bool:
    """Whether the monotonic clock knows how old an entry is, whatever the wall clock says."""
    return entry.clock is not None and entry.boot == now.boot


def may_give_back(revert: Revert, situation: Situation) -> bool:
    """The last step before a revert; no: leave it in REVERTING, and ask `hold_after_crash` later."""
    return situation.killed is None and situation.now.monotonic < revert.deadline


def hold_refused(
    entry: Entry, revert: Revert, refusal: Refusal, after: Readings, ledger: CommandLedger, now: int
) -> Owed:
    """Another agent keeps the device, so nothing could be tried. ``after``: what all points read now."""
    writes = tuple(
        _owed(write, "UNKNOWN", refusal.told)
        if write.point in revert.points
        else _given_back(entry, write, {}, after, ledger)
        for write in held(entry)
    )
    pause = None if refusal.until is None else refusal.until - now
    return _still_owed(entry, writes, refusal.told, (revert.entry.reverting_at, now), pause)


def hold_outcome(
    entry: Entry, calls: Mapping[str, Call], after: Readings, ledger: CommandLedger, now: int
) -> NotYet | End | Owed:
    """What became of the points that a hold gave back. ``after``: what all of its points read now.

    What could not be given back stays a debt, and is tried again. The old value is never written instead:
    nobody knows if it is right.
    """
    if calls and all(call.answer == "NOT_SENT" for call in calls.values()):
        return NotYet(None, "the platform cannot be reached; its hold ends when it can")
    writes = tuple(_given_back(entry, write, calls, after, ledger) for write in held(entry))
    failed = [write for write in writes if write.outcome == "UNKNOWN"]
    if failed:
        return _still_owed(entry, writes, f"{failed[0].point}: {failed[0].reason}", (entry.reverting_at, now))
    if all(write.outcome == "NOT_WRITTEN" for write in writes):
        return _skipped(entry, writes, now)
    early = (entry.reverting_at or 0) < (entry.hold_until or 0)
    told = "given back before its time, because the worker was stopped" if early else ""
    code = "STOPPED" if early else ""
    return hold_ended(entry._replace(hold="ENDED"), "HOLD_ENDED", code, told, now, writes)


def _still_owed(
    entry: Entry,
    writes: tuple[WriteResult, ...],
    why: str,
    tried_at: tuple[int | None, int],
    pause: int | None = None,
) -> Owed:
    """The debt stays, until it is paid or a later command writes the points. The alarm is told once.

    ``tried_at``: by the clock of the entry's own times, which nobody sets, and by the wall clock.
    """
    told = f"it could not be given back yet, and is tried again until it is: {why}"
    paid = tuple(write.point for write in writes if write.outcome != "UNKNOWN")
    own, now = tried_at
    pause = FIRST_RETRY * 2 ** min(entry.hold_tries, 20) if pause is None else pause
    again = (now if own is None else own) + min(max(pause, FIRST_RETRY), LONGEST_RETRY)
    again = max(again, entry.hold_until or 0)  # it was tried before its time: the worker stopped
    after = entry._replace(
        hold="HELD",
        hold_tries=entry.hold_tries + 1,
        hold_again_at=again,
        hold_paid=(*entry.hold_paid, *paid),
    )
    alarm = hold_ended(after, "HOLD_FAILED", "HOLD_REVERT_FAILED", told, now, writes)
    return Owed(after, None if entry.hold_tries else alarm.result, told)


def _skipped(entry: Entry, writes: tuple[WriteResult, ...], now: int) -> End:
    told = "a later command wrote the points; they are left as they are"
    return hold_ended(entry._replace(hold="SKIPPED"), "HOLD_SKIPPED", "LATER_COMMAND", told, now, writes)


def _forgiven(entry: Entry, now: int) -> End:
    told = "an operator has named the command in hold.forgive; its points are left as they are"
    writes = tuple(_owed(write, "NOT_WRITTEN", told) for write in held(entry))
    return hold_ended(entry._replace(hold="SKIPPED"), "HOLD_SKIPPED", "FORGIVEN", told, now, writes)


def _owed(write: WriteResult, outcome: Outcome, why: str) -> WriteResult:
    return WriteResult(write.point, None, write.requested, None, outcome, why)


def hold_after_crash(
    entry: Entry, after: Readings, ledger: CommandLedger, situation: Situation
) -> Wait | NotYet | End | Owed | Revert:
    """It was in REVERTING when a worker began here: look, and give back only what is proved to be held.

    A point that still reads what this command wrote, with no later command on it, was not given back (or
    its default is the same value): giving it back is then safe to do again. One that reads anything else
    is not this command's any more. One that cannot be read is tried again later.
    """
    doubt = clock_doubt(ledger, situation)
    if doubt is not None and not _is_exact(entry, situation.now):
        return doubt
    if situation.killed is not None:
        return NotYet(None, kill_switch(situation.killed).sentence)
    points = tuple(
        write.point
        for write in held(entry)
        if not ledger.written_after(entry, write.point) and _still_held(entry, write, after.get(write.point))
    )
    if not points:
        return hold_outcome(entry, {}, after, ledger, situation.now.wall)
    return Revert(entry, points, situation.now.monotonic + situation.terms.claim)


def _still_held(entry: Entry, write: WriteResult, reading: Reading | None) -> bool:
    return reading is not None and same(write.requested, reading.value, entry.command.tolerance)


def _given_back(
    entry: Entry, write: WriteResult, calls: Mapping[str, Call], after: Readings, ledger: CommandLedger
) -> WriteResult:
    reading = after.get(write.point)
    told = write._replace(requested=None, previous=write.requested, actual=value_of(reading), reason="")
    call = calls.get(write.point)
    if call is None and ledger.written_after(entry, write.point):
        return told._replace(outcome="NOT_WRITTEN", reason="a later command wrote it")
    if call is not None and call.answer in ("REFUSED", "NOT_SENT"):
        return told._replace(outcome="UNKNOWN", reason=call.reason or "the device refused")
    if call is None or call.answer == "NO_ANSWER":
        if reading is None:
            return told._replace(outcome="UNKNOWN", reason="no answer came, and it cannot be read")
        if _still_held(entry, write, reading):
            return told._replace(outcome="UNKNOWN", reason="no answer came, and it is as it was")
    return told._replace(outcome="REVERTED")
