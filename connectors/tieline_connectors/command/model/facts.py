"""What a policy looks at beside the command, and what it answers; pure."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from tieline_connectors.command.model.command import Value
from tieline_connectors.command.model.ledger import Written
from tieline_connectors.command.model.streaks import Streak

MAX_TEXT = 10_000
"""Characters of a text that a point may read."""


class Refusal(NamedTuple):
    """Why a command is refused: the code for programs, the sentence for people, the point if it is one."""

    code: str
    sentence: str
    point: str = ""


class Reading(NamedTuple):
    """A value that the platform has just read; where it could not be read there is no `Reading`."""

    value: Value


def reading_of(found: Any) -> Reading | None:
    """What a platform answered, as a reading; none where it is nothing that a point can be (NaN, a list)."""
    if isinstance(found, float) and not math.isfinite(found):
        return None
    if isinstance(found, int) and not -(2**63) <= found < 2**63:
        return None
    if found is None or isinstance(found, (bool, int, float)):
        return Reading(found)
    return Reading(found) if isinstance(found, str) and len(found) <= MAX_TEXT and _is_text(found) else None


def _is_text(found: str) -> bool:
    """Half of a surrogate pair is legal in JSON, and no result with it could ever be stored."""
    try:
        found.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


class History(Protocol):
    """What was done before; `ledger.Ledger` is one."""

    def written(self, point: str, since: int) -> Sequence[Written]:
        """The writes of a point since then and the one before, newest first."""

    def starts(self, since: int, *, issuer: str = "", device: str = "") -> int:
        """How many commands were started after then: of all, of an issuer, or on a device."""

    def streak(self, device: str) -> Streak:
        """How often in a row the commands of a device have failed."""


class NoHistory:
    """Nothing was ever written: for checking a command beside a running sink."""

    def written(self, point: str, since: int) -> Sequence[Written]:
        """Nothing."""
        return ()

    def starts(self, since: int, *, issuer: str = "", device: str = "") -> int:
        """None."""
        return 0

    def streak(self, device: str) -> Streak:
        """None."""
        return Streak()


class Facts(NamedTuple):
    """What a policy looks at beside the command.

    ``readings``: what the points read now, none: nobody has looked yet (when the command has just come).
    ``signed_with``: the names of the keys whose signature it bears.
    """

    now: int
    history: History = NoHistory()
    readings: Mapping[str, Reading | None] | None = None
    signed_with: Collection[str] = ()
