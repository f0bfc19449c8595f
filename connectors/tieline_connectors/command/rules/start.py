"""Decide whether a command is executed: when its turn comes, and again just before the write; pure."""

from __future__ import annotations

from tieline_connectors.command.model.command import Write
from tieline_connectors.command.model.entry import LedgerEntry
from tieline_connectors.command.model.ledger import CommandLedger
from tieline_connectors.command.rules.checks import (
    check_kill_switch,
    check_policy,
    clock_doubt,
    expiry_reason,
    new_entry,
)
from tieline_connectors.command.rules.decisions import Conditions, End, NotYet, Readings, Start, Wait
from tieline_connectors.command.rules.results import build_result, end_unwritten, reject


def decide_start(
    entry: LedgerEntry, deadline: int, readings: Readings, ledger: CommandLedger, conditions: Conditions
) -> Wait | NotYet | End | Start:
    """Decide whether a command may be executed now; ``readings``: what its points read at this moment.

    Everything is checked again: since its arrival the policy, the kill switch and the writes of others may
    have changed.
    """
    now, command = conditions.now.wall, entry.command
    doubt = clock_doubt(ledger, conditions)
    if doubt is not None:
        return doubt
    if _is_expired(entry, deadline, conditions):
        return end_unwritten(entry, "EXPIRED", *expiry_reason(entry, conditions), now, readings)
    dry_run = command.dry_run or conditions.settings.dry_run
    if command.not_before is not None and now < command.not_before and not dry_run:
        return NotYet(command.not_before, "it waits for its not_before")
    rejection = check_kill_switch(conditions) or check_policy(entry, ledger, conditions, readings)
    if rejection is not None:
        return reject(entry, rejection, now, readings)
    if dry_run:
        message = "dry run: everything was checked, nothing was written"
        return end_unwritten(entry, "SUCCEEDED", "DRY_RUN", message, now, readings, dry_run=True)
    return _start(entry, deadline, readings, ledger, conditions)


def _start(
    entry: LedgerEntry, deadline: int, readings: Readings, ledger: CommandLedger, conditions: Conditions
) -> Start:
    if (
        entry.boot != conditions.now.boot
    ):  # it arrived before the computer was started: one clock for its times
        again = new_entry(entry.command, entry.deadline, conditions.now)
        entry = entry._replace(
            boot=again.boot, clock=again.clock, received_at=min(entry.received_at, again.received_at)
        )
    # At least one microsecond apart, so that the ledger knows which of two commands was later.
    started_at = max(entry.clock_time(conditions.now), ledger.latest_time + 1 - ledger.time_shift(entry))
    started = entry._replace(state="STARTED", started_at=started_at)
    claim = min(deadline, conditions.now.monotonic + conditions.settings.claim)
    return Start(started, build_result(started, "EXECUTING", "", "", conditions.now.wall, readings), claim)


def check_before_write(
    entry: LedgerEntry, deadline: int, readings: Readings, conditions: Conditions
) -> End | None:
    """Return the end of a command that must not be written any more; ``None``: write it.

    This is the last step before the write, after STARTED is durable. ``deadline``: that of the `Start`. It is
    also checked while a command waits for an unavailable platform.
    """
    now = conditions.now.wall
    if _is_expired(entry, deadline, conditions):
        return end_unwritten(entry, "EXPIRED", *expiry_reason(entry, conditions), now, readings)
    rejection = check_kill_switch(conditions)
    return None if rejection is None else reject(entry, rejection, now, readings)


def reject_reserved(entry: LedgerEntry, device: str, message: str, now: int, readings: Readings) -> End:
    """Return the end of a command that was not started because another agent keeps one of its devices.

    The reason belongs to the writes of that device; if ``device`` is empty, to all writes.
    """
    end = end_unwritten(entry, "FAILED", "DEVICE_REFUSED", message, now, readings)
    writes = tuple(
        write._replace(reason=message) if device in ("", Write(write.point).device) else write
        for write in end.result.writes
    )
    result = end.result._replace(writes=writes)
    return End(end.entry._replace(result=result), result)


def _is_expired(entry: LedgerEntry, deadline: int, conditions: Conditions) -> bool:
    now = conditions.now
    if entry.state == "STARTED" and now.raw_wall >= entry.deadline:
        return True  # a clock that was set since the start may be right
    too_old = now.wall >= entry.command.issued_at + conditions.settings.max_age
    return too_old or now.wall >= entry.deadline or now.monotonic >= deadline
