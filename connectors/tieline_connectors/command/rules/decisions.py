"""What the rules get and what they return: plain data; pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple, TypeAlias

from tieline_connectors.command.model.clock import Now as Now
from tieline_connectors.command.model.command import Result
from tieline_connectors.command.model.entry import LedgerEntry
from tieline_connectors.command.model.facts import Reading
from tieline_connectors.command.policy.changes import EffectivePolicy
from tieline_connectors.command.policy.policy import Policy

Readings: TypeAlias = "Mapping[str, Reading | None]"
"""Point → what it reads; ``None`` if it could not be read."""


class RuleSettings(NamedTuple):
    """The settings of the sink that the rules need; microseconds.

    ``built_at``: the date of this version of tieline. ``claim``: how long after a claim (STARTED, REVERTING)
    the write may begin. It is shorter than the session timeout of the consumer group: a worker that was
    suspended for longer may have lost its partition. ``forgiven``: commands whose hold an operator has ended
    without a revert. ``signed_destination_required``: a signature counts only if the command names topic and
    platform.
    """

    max_age: int
    max_clock_skew: int
    built_at: int = 0
    dry_run: bool = False
    claim: int = 10_000_000
    forgiven: frozenset[str] = frozenset()
    signed_destination_required: bool = False


class Conditions(NamedTuple):
    """All that a decision depends on beside the command.

    ``keys``: the keys of signatures by name. ``killed``: why the kill switch is engaged, ``None`` if it is
    not.
    """

    now: Now
    settings: RuleSettings
    policy: Policy | EffectivePolicy
    keys: Mapping[str, bytes] = {}
    killed: str | None = None


class Wait(NamedTuple):
    """Decide nothing now: no entry, no result, and no offset is committed."""

    code: str
    reason: str


class NotYet(NamedTuple):
    """The entry's turn comes later: at this time, or, if ``None``, when something else changes."""

    at: int | None
    reason: str


class InProgress(NamedTuple):
    """The command is in the ledger and has not ended: nothing to do."""

    entry: LedgerEntry


class Answer(NamedTuple):
    """Send this result; the ledger does not change. ``known``: it is the result that the ledger has."""

    result: Result
    known: bool = False


class Accept(NamedTuple):
    """Store the entry (RECEIVED), then send the result. ``deadline``: never execute it later, monotonic."""

    entry: LedgerEntry
    result: Result
    deadline: int


class Start(NamedTuple):
    """Store the entry (STARTED), send the result, call `check_before_write` with the deadline, then write."""

    entry: LedgerEntry
    result: Result
    deadline: int


class End(NamedTuple):
    """Store the entry (ENDED, or a step of its hold) and send the result."""

    entry: LedgerEntry
    result: Result


class RetryHold(NamedTuple):
    """Store the entry: its hold is tried again later. Send ``result`` unless it is ``None``."""

    entry: LedgerEntry
    result: Result | None
    reason: str


class Revert(NamedTuple):
    """Store the entry (REVERTING), call `may_revert`, then revert these points."""

    entry: LedgerEntry
    points: tuple[str, ...]
    deadline: int


class CallResult(NamedTuple):
    """What became of one write at the platform.

    ``DONE``: answered. ``REFUSED``: this very call was answered with an error, and nothing was written.
    ``NO_ANSWER``: it may have been written. ``NOT_SENT``: it certainly was not. ``at``: when it was
    answered, by the monotonic clock; ``None`` if unknown.
    """

    answer: Literal["DONE", "REFUSED", "NO_ANSWER", "NOT_SENT"]
    reason: str = ""
    at: int | None = None
