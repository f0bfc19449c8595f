"""Decide about the commands of a ledger that was restored from a backup; pure.

What was written to the ledger after the backup is lost, and so are the commands that came since then.

- A command that waits in it may have been executed, so it is never executed: its end is UNKNOWN.
- A command that it does not know may have been executed, so it counts as forgotten if it was issued before.
- A hold may have ended, and another command may have written its points: they are reverted only if they
  still read what the hold wrote.
"""

from __future__ import annotations

from tieline_connectors.command.model.command import WriteResult
from tieline_connectors.command.model.entry import RESTORED, LedgerEntry
from tieline_connectors.command.model.ledger import CommandLedger
from tieline_connectors.command.model.partition_note import PartitionNote, add_times
from tieline_connectors.command.rules.checks import clock_doubt, new_entry
from tieline_connectors.command.rules.decisions import Conditions, End, Wait
from tieline_connectors.command.rules.results import end_written

_MESSAGE = (
    "the ledger was restored from a backup, and the command may have been executed since the backup was "
    "taken; an operator has to look"
)


def note_restore(ledger: CommandLedger, restored_at: int, conditions: Conditions) -> Wait | PartitionNote:
    """Return the note of a ledger that was restored: unknown commands issued until now count as forgotten.

    ``restored_at``: what the changelog says, microseconds by the clock at the restore.
    """
    doubt = clock_doubt(ledger, conditions)
    if doubt is not None:
        return doubt
    until = max(conditions.now.wall, restored_at) + conditions.settings.max_clock_skew
    note = mark_uncertain(ledger)
    return note._replace(restored_at=restored_at, forgotten=add_times(note.forgotten, [], (0, until)))


def mark_uncertain(ledger: CommandLedger) -> PartitionNote:
    """Return the note that makes all present entries of a ledger uncertain."""
    return ledger.note._replace(uncertain=max(ledger.note.uncertain, ledger.stored_at))


def is_uncertain(entry: LedgerEntry, ledger: CommandLedger) -> bool:
    """Return whether more may have been done of a command than its entry says."""
    if entry.stored_at <= ledger.note.uncertain:
        return True
    return entry.result is not None and entry.result.reason_code == RESTORED


def decide_restored(entry: LedgerEntry, ledger: CommandLedger, conditions: Conditions) -> Wait | End:
    """Decide about an uncertain command in RECEIVED: it may have been executed, so it never is.

    With a hold, its points may be held from now on.
    """
    doubt = clock_doubt(ledger, conditions)
    if doubt is not None:
        return doubt
    now = conditions.now
    if entry.boot != now.boot:  # one clock for its times
        again = new_entry(entry.command, entry.deadline, now)
        entry = entry._replace(
            boot=again.boot, clock=again.clock, received_at=min(entry.received_at, again.received_at)
        )
    started_at = max(entry.clock_time(now), ledger.latest_time + 1 - ledger.time_shift(entry))
    writes = tuple(
        WriteResult(w.point, w.value, outcome="UNKNOWN", reason=_MESSAGE) for w in entry.command.writes
    )
    return end_written(
        entry._replace(started_at=started_at), "UNKNOWN", "RESTORED", _MESSAGE, now.wall, writes
    )
