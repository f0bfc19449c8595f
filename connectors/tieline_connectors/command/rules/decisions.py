"""What the rules are told and what they answer: plain data; pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple, TypeAlias

from tieline_connectors.command.model.clock import Now as Now
from tieline_connectors.command.model.command import Result
from tieline_connectors.command.model.facts import Reading
from tieline_connectors.command.model.ledger import Entry
from tieline_connectors.command.policy.changes import InForce
from tieline_connectors.command.policy.policy import Policy

Readings: TypeAlias = "Mapping[str, Reading | None]"
"""Point → what it reads; none: it could not be read."""


class Terms(NamedTuple):
    """What the sink's settings say; microseconds.

    ``built_at``: the date of this version of tieline. ``claim``: how long after a claim (STARTED,
    REVERTING) the write may be begun; a worker that stood still for longer may have lost its partition.
    Shorter than the session timeout of the consumer group. ``forgiven``: commands whose hold an operator
    has ended without giving back. ``signed_place``: a signature counts only if it names topic and platform.
    """

    max_age: int
    max_clock_skew: int
    built_at: int = 0
    dry_run: bool = False
    claim: int = 10_000_000
    forgiven: frozenset[str] = frozenset()
    signed_place: bool = False


class Situation(NamedTuple):
    """Everything beside the command that a decision depends on.

    ``killed``: why the kill switch is engaged, none: it is not. ``keys``: the keys of signatures
    by name.
    """

    now: Now
    terms: Terms
    policy: Policy | InForce
    keys: Mapping[str, bytes] = {}
    killed: str | None = None


class Wait(NamedTuple):
    """Decide nothing now: no entry, no result, and no offset moves."""

    code: str
    sentence: str


class NotYet(NamedTuple):
    """Its turn comes later: at this time, or (none) when something else changes."""

    at: int | None
    sentence: str


class Known(NamedTuple):
    """It is in the ledger and on its way: nothing to do."""

    entry: Entry


class Answer(NamedTuple):
    """Tell this; the ledger stays as it is. ``known``: it was told before, and is what the ledger has."""

    result: Result
    known: bool = False


class Accept(NamedTuple):
    """Store the entry (RECEIVED), then tell. ``deadline``: never execute it from then on, monotonic."""

    entry: Entry
    result: Result
    deadline: int


class Start(NamedTuple):
    """Store the entry (STARTED), then tell, then `last_look` with this deadline, then write."""

    entry: Entry
    result: Result
    deadline: int


class End(NamedTuple):
    """Store the entry (ENDED, or a step of its hold) and tell."""

    entry: Entry
    result: Result


class Owed(NamedTuple):
    """Store the entry: its hold is tried again later. ``result`` is told if it is there, ``told`` logged."""

    entry: Entry
    result: Result | None
    told: str


class Revert(NamedTuple):
    """Store the entry (REVERTING), then `may_give_back`, then give these points back."""

    entry: Entry
    points: tuple[str, ...]
    deadline: int


class Call(NamedTuple):
    """What became of one write at the platform.

    ``DONE``: answered. ``REFUSED``: this very call was answered with an error, and nothing was written.
    ``NO_ANSWER``: it may have been written. ``NOT_SENT``: it certainly was not. ``at``: when it was
    answered, by the monotonic clock; ``None``: not known.
    """

    answer: Literal["DONE", "REFUSED", "NO_ANSWER", "NOT_SENT"]
    reason: str = ""
    at: int | None = None
