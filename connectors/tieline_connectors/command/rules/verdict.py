"""What a write came to, from the platform's answer and from what was read back; pure."""

from __future__ import annotations

import math
from collections.abc import Mapping

from tieline_connectors.command.model.command import Command, Outcome, State, Value, Write, WriteResult
from tieline_connectors.command.model.facts import Reading
from tieline_connectors.command.rules.decisions import Call
from tieline_connectors.command.rules.results import value_of

SINGLE_PRECISION = 2.4e-7
"""Registers of 32 bits return 21.3 as 21.299999; such a difference is none."""


def same(written: Value, read: Value, tolerance: float) -> bool:
    """Whether a value that was read back is the one that was written."""
    if isinstance(written, str) or isinstance(read, str) or written is None or read is None:
        return written is not None and written == read
    if isinstance(written, bool) or isinstance(read, bool):
        return written == read
    if isinstance(written, float) or isinstance(read, float):
        return math.isclose(written, read, rel_tol=SINGLE_PRECISION, abs_tol=tolerance)
    return abs(written - read) <= tolerance


def written(
    command: Command,
    write: Write,
    call: Call,
    before: Reading | None,
    after: Reading | None,
    given_back: Call | None,
) -> WriteResult:
    """One write: what was read before and after it; ``given_back``: its revert, if there was to be one."""
    proved = after is not None and same(write.value, after.value, command.tolerance)
    reason = call.reason
    result: Outcome
    if call.answer in ("REFUSED", "NOT_SENT"):
        result = "NOT_WRITTEN"
    elif given_back is not None:
        result = "REVERTED" if given_back.answer == "DONE" else "UNKNOWN"
        reason = given_back.reason
    elif proved:
        result = "VERIFIED"
    elif call.answer == "NO_ANSWER":
        result = "UNKNOWN"
    else:
        result = "UNVERIFIED" if after is None or write.value is None else "DIFFERENT"
    return WriteResult(write.point, write.value, value_of(before), value_of(after), result, reason)


def verdict(
    command: Command,
    calls: Mapping[str, Call],
    writes: tuple[WriteResult, ...],
    late: int = 0,
) -> tuple[State, str, str]:
    """The whole command: its state, the code, the sentence.

    ``late``: by how many microseconds the proof of a write came after the command's expiry.
    """
    state, code, told = _in_time(command, calls, writes)
    if late <= 0 or state in ("FAILED", "REJECTED"):
        return state, code, told
    if state == "SUCCEEDED":
        return proved(told or "the device holds what was asked", late)
    return state, code, f"{told}; {_perhaps(late)}"


def proved(told: str, late: int) -> tuple[State, str, str]:
    """A write that is proved by reading back, or by an answer after the expiry.

    ``late``: by how many microseconds the proof came after the command's expiry.
    """
    if late <= 0:
        return "SUCCEEDED", "PROVED_BY_READ_BACK", told
    return "SUCCEEDED", "MAYBE_LATE", f"{told}; {_perhaps(late)}"


def _perhaps(late: int) -> str:
    return f"the proof came {late / 1_000_000:.3f} s after the expiry, and perhaps the write took effect late"


def _in_time(
    command: Command, calls: Mapping[str, Call], writes: tuple[WriteResult, ...]
) -> tuple[State, str, str]:
    answers = [calls[write.point].answer for write in writes]
    outcomes = [write.outcome for write in writes]
    if "NO_ANSWER" in answers:
        if all(outcome == "VERIFIED" for outcome in outcomes):
            return "SUCCEEDED", "PROVED_BY_READ_BACK", "no answer came, and the device holds what was asked"
        return "UNKNOWN", "NO_ANSWER", "no answer came, and reading back proves nothing; a person has to look"
    if "REFUSED" in answers or "NOT_SENT" in answers:
        if "UNKNOWN" in outcomes:
            told = "a part was written and could not be given back; a person has to look"
            return "UNKNOWN", "REVERT_FAILED", told
        part = "" if set(answers) <= {"REFUSED", "NOT_SENT"} else _partly(command)
        if "REFUSED" in answers:
            first = writes[answers.index("REFUSED")]
            told = f"{first.point} was refused: {calls[first.point].reason or 'no reason was given'}{part}"
            return "FAILED", "DEVICE_REFUSED", told
        first = writes[answers.index("NOT_SENT")]
        why = calls[first.point].reason or "the platform could not be reached"
        return "FAILED", "NOT_SENT", f"{first.point} was not written: {why}{part}"
    if "DIFFERENT" in outcomes:
        first = writes[outcomes.index("DIFFERENT")]
        told = f"{first.point} was written with {first.requested} and reads {first.actual}"
        return "MISMATCH", "READ_BACK_DIFFERS", told
    unread = [w.point for w in writes if w.outcome == "UNVERIFIED" and w.requested is not None]
    if unread:
        return "UNKNOWN", "NOT_READ_BACK", f"{unread[0]} was written and could not be read afterwards"
    if "UNVERIFIED" in outcomes:
        return "SUCCEEDED", "NOT_COMPARED", "given back as asked; there is no value to compare with"
    return "SUCCEEDED", "", ""


def _partly(command: Command) -> str:
    done = "stay so" if command.action == "REVERT" else "were given back"
    return f"; the points written before it {done}"
