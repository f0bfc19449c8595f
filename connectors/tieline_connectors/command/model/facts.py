"""What a policy needs beside the command, and what it returns; pure."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from tieline_connectors.command.model.command import Value
from tieline_connectors.command.model.ledger import PastWrite
from tieline_connectors.command.model.streaks import Streak

MAX_TEXT = 10_000
"""The most characters of a text that a point may read."""


class Rejection(NamedTuple):
    """Why a command is rejected: a code for programs, a reason for people, and perhaps the point."""

    code: str
    reason: str
    point: str = ""


class Reading(NamedTuple):
    """A value that the platform has just read; a point that could not be read has no `Reading`."""

    value: Value


def reading_of(answer: Any) -> Reading | None:
    """Return a platform's answer as a reading; ``None`` if no point can have that value (NaN, a list)."""
    if isinstance(answer, float) and not math.isfinite(answer):
        return None
    if isinstance(answer, int) and not -(2**63) <= answer < 2**63:
        return None
    if answer is None or isinstance(answer, (bool, int, float)):
        return Reading(answer)
    return (
        Reading(answer)
        if isinstance(answer, str) and len(answer) <= MAX_TEXT and _is_storable(answer)
        else None
    )


def _is_storable(text: str) -> bool:
    """Return whether UTF-8 can encode a text: JSON allows half of a surrogate pair, results do not."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


class History(Protocol):
    """What was done before; `ledger.CommandLedger` implements it."""

    def writes(self, point: str, since: int) -> Sequence[PastWrite]:
        """Return the writes of a point since then and the one before, newest first."""

    def count_starts(self, since: int, *, issuer: str = "", device: str = "") -> int:
        """Return how many commands were started after then: in all, of an issuer, or on a device."""

    def streak(self, device: str) -> Streak:
        """Return how many of the last commands of a device have failed."""


class EmptyHistory:
    """An empty history, for checking a command without a sink."""

    def writes(self, point: str, since: int) -> Sequence[PastWrite]:
        """Return nothing."""
        return ()

    def count_starts(self, since: int, *, issuer: str = "", device: str = "") -> int:
        """Return 0."""
        return 0

    def streak(self, device: str) -> Streak:
        """Return a streak without failures."""
        return Streak()


class PolicyContext(NamedTuple):
    """What a policy needs beside the command.

    ``readings``: what the points read now, ``None`` if they are not read yet (when the command has arrived).
    ``signed_with``: the names of the keys that signed it.
    """

    now: int
    history: History = EmptyHistory()
    readings: Mapping[str, Reading | None] | None = None
    signed_with: Collection[str] = ()
