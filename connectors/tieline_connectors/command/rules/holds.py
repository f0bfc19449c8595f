"""Decide how a hold ends, and why; pure.

    decide_hold ► may_revert ► decide_hold_outcome      after a crash in REVERTING: decide_hold_after_crash

A hold is owed until it is settled: the points were reverted, a later command wrote them, or an operator
forgave it. A lock, an override, or an unavailable device or platform only delays it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from tieline_connectors.command.model.clock import Now
from tieline_connectors.command.model.command import Outcome, WriteResult
from tieline_connectors.command.model.entry import LedgerEntry
from tieline_connectors.command.model.facts import Reading
from tieline_connectors.command.model.ledger import CommandLedger
from tieline_connectors.command.rules.checks import check_kill_switch, clock_doubt
from tieline_connectors.command.rules.decisions import (
    CallResult,
    Conditions,
    End,
    NotYet,
    Readings,
    RetryHold,
    Revert,
    Wait,
)
from tieline_connectors.command.rules.results import end_hold, held_writes, value_of
from tieline_connectors.command.rules.verdict import same_value


class ReservationFailure(NamedTuple):
    """Why a device cannot be reserved, and until when, in microseconds, if that is known."""

    reason: str
    until: int | None = None


FIRST_RETRY, LONGEST_RETRY = 1_000_000, 300_000_000
"""How long after a failed revert the next try is, doubled each time; microseconds."""


def decide_hold(
    entry: LedgerEntry, ledger: CommandLedger, conditions: Conditions, early: bool = False
) -> Wait | NotYet | End | Revert:
    """Decide about a hold whose time is over: revert its points, unless a later command wrote them.

    If it is late, it is reverted late. ``early``: the worker stops, and reverts what it holds. The kill
    switch blocks this too.
    """
    now = conditions.now.wall
    doubt = clock_doubt(ledger, conditions)
    if doubt is not None and not _has_monotonic_age(entry, conditions.now):
        return doubt
    if entry.due_at is None or (entry.clock_time(conditions.now) < entry.due_at and not early):
        return NotYet(entry.due_at, "its hold has not ended")
    if entry.command_id in conditions.settings.forgiven:
        return _forgive_hold(entry, now)
    killed = check_kill_switch(conditions)
    if killed is not None:
        return NotYet(None, killed.reason)
    points = tuple(w.point for w in held_writes(entry) if not ledger.written_after(entry, w.point))
    if not points:
        writes = tuple(_hold_write_result(entry, write, {}, {}, ledger) for write in held_writes(entry))
        return _skip_hold(entry, writes, now)
    claim = conditions.now.monotonic + conditions.settings.claim
    reverting = entry._replace(hold="REVERTING", reverting_at=entry.clock_time(conditions.now))
    return Revert(reverting, points, claim)


def _has_monotonic_age(entry: LedgerEntry, now: Now) -> bool:
    """Return whether the monotonic clock knows how old an entry is, even if the wall clock is wrong."""
    return entry.clock is not None and entry.boot == now.boot


def may_revert(revert: Revert, conditions: Conditions) -> bool:
    """Return whether the points may be reverted now: the last step before the revert.

    If not, leave the entry in REVERTING, and call `decide_hold_after_crash` later.
    """
    return conditions.killed is None and conditions.now.monotonic < revert.deadline


def postpone_hold(
    entry: LedgerEntry,
    revert: Revert,
    failure: ReservationFailure,
    after: Readings,
    ledger: CommandLedger,
    now: int,
) -> RetryHold:
    """Decide about a hold whose device another agent keeps. ``after``: what all points read now."""
    writes = tuple(
        _write_result(write, "UNKNOWN", failure.reason)
        if write.point in revert.points
        else _hold_write_result(entry, write, {}, after, ledger)
        for write in held_writes(entry)
    )
    pause = None if failure.until is None else failure.until - now
    return _retry_hold(entry, writes, failure.reason, (revert.entry.reverting_at, now), pause)


def decide_hold_outcome(
    entry: LedgerEntry, calls: Mapping[str, CallResult], after: Readings, ledger: CommandLedger, now: int
) -> NotYet | End | RetryHold:
    """Decide what became of the points that a hold reverted. ``after``: what all of its points read now.

    Points that could not be reverted are tried again. The old value is never written instead: it may be
    wrong by now.
    """
    if calls and all(call.answer == "NOT_SENT" for call in calls.values()):
        return NotYet(None, "the platform is unavailable; the hold ends when it is available again")
    writes = tuple(_hold_write_result(entry, write, calls, after, ledger) for write in held_writes(entry))
    failed = [write for write in writes if write.outcome == "UNKNOWN"]
    if failed:
        return _retry_hold(entry, writes, f"{failed[0].point}: {failed[0].reason}", (entry.reverting_at, now))
    if all(write.outcome == "NOT_WRITTEN" for write in writes):
        return _skip_hold(entry, writes, now)
    early = (entry.reverting_at or 0) < (entry.hold_until or 0)
    message = "reverted before its time, because the worker was stopped" if early else ""
    code = "STOPPED" if early else ""
    return end_hold(entry._replace(hold="ENDED"), "HOLD_ENDED", code, message, now, writes)


def _retry_hold(
    entry: LedgerEntry,
    writes: tuple[WriteResult, ...],
    why: str,
    tried_at: tuple[int | None, int],
    pause: int | None = None,
) -> RetryHold:
    """Keep the hold until it is reverted or a later command writes the points; send the alarm once.

    ``tried_at``: by the clock of the entry's other times, which is never set, and by the wall clock.
    """
    message = f"it could not be reverted yet, and is retried until it is: {why}"
    settled = tuple(write.point for write in writes if write.outcome != "UNKNOWN")
    entry_time, now = tried_at
    pause = FIRST_RETRY * 2 ** min(entry.hold_tries, 20) if pause is None else pause
    again = (now if entry_time is None else entry_time) + min(max(pause, FIRST_RETRY), LONGEST_RETRY)
    again = max(again, entry.hold_until or 0)  # it was tried before its time: the worker stopped
    after = entry._replace(
        hold="HELD",
        hold_tries=entry.hold_tries + 1,
        hold_again_at=again,
        hold_paid=(*entry.hold_paid, *settled),
    )
    alarm = end_hold(after, "HOLD_FAILED", "HOLD_REVERT_FAILED", message, now, writes)
    return RetryHold(after, None if entry.hold_tries else alarm.result, message)


def _skip_hold(entry: LedgerEntry, writes: tuple[WriteResult, ...], now: int) -> End:
    message = "a later command wrote the points; they are not changed"
    return end_hold(entry._replace(hold="SKIPPED"), "HOLD_SKIPPED", "LATER_COMMAND", message, now, writes)


def _forgive_hold(entry: LedgerEntry, now: int) -> End:
    message = "an operator named the command in hold.forgive; its points are not changed"
    writes = tuple(_write_result(write, "NOT_WRITTEN", message) for write in held_writes(entry))
    return end_hold(entry._replace(hold="SKIPPED"), "HOLD_SKIPPED", "FORGIVEN", message, now, writes)


def _write_result(write: WriteResult, outcome: Outcome, why: str) -> WriteResult:
    return WriteResult(write.point, None, write.requested, None, outcome, why)


def decide_hold_after_crash(
    entry: LedgerEntry, after: Readings, ledger: CommandLedger, conditions: Conditions
) -> Wait | NotYet | End | RetryHold | Revert:
    """Decide about a hold in REVERTING when a worker takes over: revert only what is proven to be held.

    A point that still reads what this command wrote, with no later command on it, was not reverted (or its
    default is the same value): reverting it again is safe. A point that reads anything else does not belong
    to this command any more. A point that cannot be read is tried again later.
    """
    doubt = clock_doubt(ledger, conditions)
    if doubt is not None and not _has_monotonic_age(entry, conditions.now):
        return doubt
    killed = check_kill_switch(conditions)
    if killed is not None:
        return NotYet(None, killed.reason)
    points = tuple(
        write.point
        for write in held_writes(entry)
        if not ledger.written_after(entry, write.point) and _still_held(entry, write, after.get(write.point))
    )
    if not points:
        return decide_hold_outcome(entry, {}, after, ledger, conditions.now.wall)
    return Revert(entry, points, conditions.now.monotonic + conditions.settings.claim)


def _still_held(entry: LedgerEntry, write: WriteResult, reading: Reading | None) -> bool:
    return reading is not None and same_value(write.requested, reading.value, entry.command.tolerance)


def _hold_write_result(
    entry: LedgerEntry,
    write: WriteResult,
    calls: Mapping[str, CallResult],
    after: Readings,
    ledger: CommandLedger,
) -> WriteResult:
    reading = after.get(write.point)
    result = write._replace(requested=None, previous=write.requested, actual=value_of(reading), reason="")
    call = calls.get(write.point)
    if call is None and ledger.written_after(entry, write.point):
        return result._replace(outcome="NOT_WRITTEN", reason="a later command wrote it")
    if call is not None and call.answer in ("REFUSED", "NOT_SENT"):
        return result._replace(outcome="UNKNOWN", reason=call.reason or "the device refused")
    if call is None or call.answer == "NO_ANSWER":
        if reading is None:
            return result._replace(outcome="UNKNOWN", reason="no answer came, and it cannot be read")
        if _still_held(entry, write, reading):
            return result._replace(outcome="UNKNOWN", reason="no answer came, and its value has not changed")
    return result._replace(outcome="REVERTED")
