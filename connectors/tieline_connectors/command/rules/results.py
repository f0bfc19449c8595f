"""Entries and results as the rules end with them: how a decision is put into words; pure."""

from __future__ import annotations

from tieline_connectors.command.model.command import Result, State, Value, WriteResult
from tieline_connectors.command.model.facts import Reading, Refusal
from tieline_connectors.command.model.ledger import Entry
from tieline_connectors.command.rules.decisions import End, Readings

LONGEST_TOLD = 200
"""Characters of a text that was read: a result with a hundred of them has to fit into a record."""


def refused(entry: Entry, refusal: Refusal, now: int, readings: Readings | None = None) -> End:
    """The end of a command that may not be executed, or cannot be."""
    end = ended(entry, "REJECTED", refusal.code, refusal.sentence, now, readings)
    writes = tuple(
        write._replace(reason=refusal.sentence) if write.point == refusal.point else write
        for write in end.result.writes
    )
    result = end.result._replace(writes=writes)
    return End(end.entry._replace(result=result), result)


def ended(
    entry: Entry,
    state: State,
    code: str,
    sentence: str,
    now: int,
    readings: Readings | None = None,
    *,
    dry_run: bool = False,
) -> End:
    """The end of a command of which nothing was written."""
    result = result_of(entry, state, code, sentence, now, readings, dry_run=dry_run)
    return End(entry._replace(state="ENDED", ended_at=now, result=result), result)


def ended_with(
    entry: Entry, state: State, code: str, sentence: str, now: int, writes: tuple[WriteResult, ...]
) -> End:
    """The end of a command whose write was tried; a hold that it asked for is owed from here on."""
    result = result_of(entry, state, code, sentence, now)._replace(writes=writes)
    after = entry._replace(state="ENDED", ended_at=now, result=result)
    if entry.command.hold_ms is not None and held(after):
        started = entry.started_at if entry.started_at is not None else now
        after = after._replace(hold="HELD", hold_until=started + entry.command.hold_ms * 1000)
    return End(after, result)


def hold_ended(
    entry: Entry, state: State, code: str, sentence: str, now: int, writes: tuple[WriteResult, ...]
) -> End:
    """The end of a hold; the command's own result stays in the ledger."""
    return End(entry, result_of(entry, state, code, sentence, now)._replace(writes=writes))


def result_of(
    entry: Entry,
    state: State,
    code: str,
    sentence: str,
    now: int,
    readings: Readings | None = None,
    *,
    dry_run: bool = False,
) -> Result:
    """What is told of a command; ``readings``: what its points read before anything was written."""
    command = entry.command
    return Result(
        command.command_id,
        state,
        now,
        command.correlation_id,
        command.issuer,
        code,
        sentence,
        tuple(WriteResult(w.point, w.value, value_of((readings or {}).get(w.point))) for w in command.writes),
        dry_run or command.dry_run,
        entry.received_at,
        entry.started_at,
    )


def value_of(reading: Reading | None) -> Value:
    """What was read, as it is told; none where nothing could be."""
    if reading is None:
        return None
    return reading.value[:LONGEST_TOLD] if isinstance(reading.value, str) else reading.value


def held(entry: Entry) -> list[WriteResult]:
    """The writes of a command that its hold has yet to give back, also those that may have been written."""
    writes = () if entry.result is None else entry.result.writes
    return [
        w
        for w in writes
        if w.requested is not None
        and w.outcome not in ("NOT_WRITTEN", "REVERTED")
        and w.point not in entry.hold_paid
    ]
