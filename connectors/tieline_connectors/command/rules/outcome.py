"""Decide what became of a command after its write, or after a crash during the write; pure."""

from __future__ import annotations

from collections.abc import Mapping

from tieline_connectors.command.model.entry import LedgerEntry
from tieline_connectors.command.rules.decisions import CallResult, End, Readings
from tieline_connectors.command.rules.results import end_written
from tieline_connectors.command.rules.verdict import proven, verdict, write_result


def points_to_revert(entry: LedgerEntry, calls: Mapping[str, CallResult]) -> tuple[str, ...]:
    """Return the points of a batch that failed in the middle that were written and must be reverted.

    After a call without an answer there are none: it may still take effect, so an operator has to look.
    """
    answers = {call.answer for call in calls.values()}
    if "NO_ANSWER" in answers or answers == {"DONE"} or entry.command.action == "REVERT":
        return ()
    return tuple(w.point for w in entry.command.writes if calls[w.point].answer == "DONE")


def decide_outcome(
    entry: LedgerEntry,
    calls: Mapping[str, CallResult],
    before: Readings,
    after: Readings,
    reverted: Mapping[str, CallResult],
    now: int,
    late: int = 0,
) -> End:
    """Decide what became of a command, from the platform's answers and the readings before and after.

    ``reverted``: what became of each revert that `points_to_revert` asked for. ``late``: what `lateness`
    returned.
    """
    command = entry.command
    missing = {
        point: CallResult("NOT_SENT", "it was not reverted") for point in points_to_revert(entry, calls)
    }
    reverts = {**missing, **reverted}
    writes = tuple(
        write_result(
            command, w, calls[w.point], before.get(w.point), after.get(w.point), reverts.get(w.point)
        )
        for w in command.writes
    )
    return end_written(entry, *verdict(command, calls, writes, late), now, writes)


def lateness(calls: Mapping[str, CallResult], read_at: int, deadline: int) -> int:
    """Return by how many microseconds the proof of a write came after its expiry; 0: in time.

    The proof is the platform's answer, or, if none came, the reading back at ``read_at``; all on the
    monotonic clock. A request that waited at a frozen driver may have taken effect at any moment before its
    proof.
    """
    answered = [call.at for call in calls.values() if call.answer == "DONE" and call.at is not None]
    read = [read_at for call in calls.values() if call.answer == "NO_ANSWER"]
    return max([0, *(at - deadline for at in answered + read)])


def decide_after_crash(entry: LedgerEntry, after: Readings, now: int) -> End:
    """Decide about a command in STARTED when a worker takes over: read the device, never write again."""
    command = entry.command
    lost = CallResult("NO_ANSWER", "the worker died while it was written")
    writes = tuple(write_result(command, w, lost, None, after.get(w.point), None) for w in command.writes)
    if all(write.outcome == "VERIFIED" for write in writes):
        success = proven("the device holds the requested values", now - entry.deadline)
        return end_written(entry, *success, now, writes)
    message = "the worker died during the write, and reading back proves nothing; an operator has to look"
    return end_written(entry, "UNKNOWN", "CRASHED", message, now, writes)
