"""Build the entries and results of decisions; pure."""

from __future__ import annotations

from tieline_connectors.command.model.command import Result, State, Value, WriteResult
from tieline_connectors.command.model.entry import LedgerEntry
from tieline_connectors.command.model.facts import Reading, Rejection
from tieline_connectors.command.rules.decisions import End, Readings

MAX_READ_TEXT = 200
"""Characters of a text that was read: a result with a hundred of them has to fit into a record."""


def reject(entry: LedgerEntry, rejection: Rejection, now: int, readings: Readings | None = None) -> End:
    """Return the end of a command that may not or cannot be executed."""
    end = end_unwritten(entry, "REJECTED", rejection.code, rejection.reason, now, readings)
    writes = tuple(
        write._replace(reason=rejection.reason) if write.point == rejection.point else write
        for write in end.result.writes
    )
    result = end.result._replace(writes=writes)
    return End(end.entry._replace(result=result), result)


def end_unwritten(
    entry: LedgerEntry,
    state: State,
    code: str,
    reason: str,
    now: int,
    readings: Readings | None = None,
    *,
    dry_run: bool = False,
) -> End:
    """Return the end of a command that wrote nothing."""
    result = build_result(entry, state, code, reason, now, readings, dry_run=dry_run)
    return End(entry._replace(state="ENDED", ended_at=now, result=result), result)


def end_written(
    entry: LedgerEntry, state: State, code: str, reason: str, now: int, writes: tuple[WriteResult, ...]
) -> End:
    """Return the end of a command whose write was tried; from here on its hold has to be reverted."""
    result = build_result(entry, state, code, reason, now)._replace(writes=writes)
    after = entry._replace(state="ENDED", ended_at=now, result=result)
    if entry.command.hold_ms is not None and held_writes(after):
        started = entry.started_at if entry.started_at is not None else now
        after = after._replace(hold="HELD", hold_until=started + entry.command.hold_ms * 1000)
    return End(after, result)


def end_hold(
    entry: LedgerEntry, state: State, code: str, reason: str, now: int, writes: tuple[WriteResult, ...]
) -> End:
    """Return the end of a hold; the command's own result stays in the ledger."""
    return End(entry, build_result(entry, state, code, reason, now)._replace(writes=writes))


def build_result(
    entry: LedgerEntry,
    state: State,
    code: str,
    reason: str,
    now: int,
    readings: Readings | None = None,
    *,
    dry_run: bool = False,
) -> Result:
    """Return the result of a command; ``readings``: what its points read before anything was written."""
    command = entry.command
    return Result(
        command.command_id,
        state,
        now,
        command.correlation_id,
        command.issuer,
        code,
        reason,
        tuple(WriteResult(w.point, w.value, value_of((readings or {}).get(w.point))) for w in command.writes),
        dry_run or command.dry_run,
        entry.received_at,
        entry.started_at,
    )


def value_of(reading: Reading | None) -> Value:
    """Return a reading as results have it; ``None`` if nothing could be read."""
    if reading is None:
        return None
    return reading.value[:MAX_READ_TEXT] if isinstance(reading.value, str) else reading.value


def held_writes(entry: LedgerEntry) -> list[WriteResult]:
    """Return the writes that a hold has yet to revert, also those that may have happened."""
    writes = () if entry.result is None else entry.result.writes
    return [
        w
        for w in writes
        if w.requested is not None
        and w.outcome not in ("NOT_WRITTEN", "REVERTED")
        and w.point not in entry.hold_paid
    ]
