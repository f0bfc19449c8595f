"""Conclude what a write came to, from the platform's answer and from what was read back; pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from tieline_connectors.command.model.command import Command, Outcome, State, Value, Write, WriteResult
from tieline_connectors.command.model.facts import Reading
from tieline_connectors.command.rules.decisions import CallResult
from tieline_connectors.command.rules.results import value_of

SINGLE_PRECISION = 2.4e-7
"""Registers of 32 bits return 21.3 as 21.299999; this relative difference does not count."""


def same_value(written: Value, read: Value, tolerance: float) -> bool:
    """Return whether a value that was read back is the one that was written."""
    if isinstance(written, str) or isinstance(read, str) or written is None or read is None:
        return written is not None and written == read
    if isinstance(written, bool) or isinstance(read, bool):
        return written == read
    if isinstance(written, float) or isinstance(read, float):
        return math.isclose(written, read, rel_tol=SINGLE_PRECISION, abs_tol=tolerance)
    return abs(written - read) <= tolerance


def write_result(
    command: Command,
    write: Write,
    call: CallResult,
    before: Reading | None,
    after: Reading | None,
    reverted: CallResult | None,
) -> WriteResult:
    """Return the result of one write.

    ``before``, ``after``: what was read. ``reverted``: what became of its revert, ``None`` if it needed none.
    """
    verified = after is not None and same_value(write.value, after.value, command.tolerance)
    reason = call.reason
    outcome: Outcome
    if call.answer in ("REFUSED", "NOT_SENT"):
        outcome = "NOT_WRITTEN"
    elif reverted is not None:
        outcome = "REVERTED" if reverted.answer == "DONE" else "UNKNOWN"
        reason = reverted.reason
    elif verified:
        outcome = "VERIFIED"
    elif call.answer == "NO_ANSWER":
        outcome = "UNKNOWN"
    else:
        outcome = "UNVERIFIED" if after is None or write.value is None else "DIFFERENT"
    return WriteResult(write.point, write.value, value_of(before), value_of(after), outcome, reason)


def verdict(
    command: Command,
    calls: Mapping[str, CallResult],
    writes: tuple[WriteResult, ...],
    late: int = 0,
) -> tuple[State, str, str]:
    """Return state, code and reason of the whole command.

    ``late``: by how many microseconds the proof of a write came after the command's expiry.
    """
    state, code, reason = _verdict_in_time(command, calls, writes)
    if late <= 0 or state in ("FAILED", "REJECTED"):
        return state, code, reason
    if state == "SUCCEEDED":
        return proven(reason or "the device holds the requested values", late)
    return state, code, f"{reason}; {_late_note(late)}"


def proven(reason: str, late: int) -> tuple[State, str, str]:
    """Return the success of a write that is proven by reading back, or by an answer after the expiry.

    ``late``: by how many microseconds the proof came after the command's expiry.
    """
    if late <= 0:
        return "SUCCEEDED", "PROVED_BY_READ_BACK", reason
    return "SUCCEEDED", "MAYBE_LATE", f"{reason}; {_late_note(late)}"


def _late_note(late: int) -> str:
    return f"the proof came {late / 1_000_000:.3f} s after the expiry, and perhaps the write took effect late"


def _verdict_in_time(
    command: Command, calls: Mapping[str, CallResult], writes: tuple[WriteResult, ...]
) -> tuple[State, str, str]:
    answers = [calls[write.point].answer for write in writes]
    outcomes = [write.outcome for write in writes]
    if "NO_ANSWER" in answers:
        if all(outcome == "VERIFIED" for outcome in outcomes):
            reason = "no answer came, and the device holds the requested values"
            return "SUCCEEDED", "PROVED_BY_READ_BACK", reason
        reason = "no answer came, and reading back proves nothing; an operator has to look"
        return "UNKNOWN", "NO_ANSWER", reason
    if "REFUSED" in answers or "NOT_SENT" in answers:
        if "UNKNOWN" in outcomes:
            reason = "some points were written and could not be reverted; an operator has to look"
            return "UNKNOWN", "REVERT_FAILED", reason
        return _failure(command, calls, writes, answers)
    if "DIFFERENT" in outcomes:
        first = writes[outcomes.index("DIFFERENT")]
        reason = f"{first.point} was written with {first.requested} and reads {first.actual}"
        return "MISMATCH", "READ_BACK_DIFFERS", reason
    unread = [w.point for w in writes if w.outcome == "UNVERIFIED" and w.requested is not None]
    if unread:
        return "UNKNOWN", "NOT_READ_BACK", f"{unread[0]} was written and could not be read afterwards"
    if "UNVERIFIED" in outcomes:
        return "SUCCEEDED", "NOT_COMPARED", "reverted as requested; there is no value to compare with"
    return "SUCCEEDED", "", ""


def _failure(
    command: Command,
    calls: Mapping[str, CallResult],
    writes: tuple[WriteResult, ...],
    answers: Sequence[str],
) -> tuple[State, str, str]:
    others = "" if set(answers) <= {"REFUSED", "NOT_SENT"} else _earlier_writes(command)
    if "REFUSED" in answers:
        first = writes[answers.index("REFUSED")]
        why = calls[first.point].reason or "no reason was given"
        return "FAILED", "DEVICE_REFUSED", f"{first.point} was refused: {why}{others}"
    first = writes[answers.index("NOT_SENT")]
    why = calls[first.point].reason or "the platform could not be reached"
    return "FAILED", "NOT_SENT", f"{first.point} was not written: {why}{others}"


def _earlier_writes(command: Command) -> str:
    done = "stay reverted" if command.action == "REVERT" else "were reverted"
    return f"; the points written before it {done}"
