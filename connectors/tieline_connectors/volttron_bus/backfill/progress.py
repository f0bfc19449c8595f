"""How far each gap is filled, when it is tried again, and what the log says about a round of filling."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from tieline_connectors.volttron_bus.backfill.history import to_historian_time
from tieline_connectors.volttron_bus.backfill.reception import Anchor

log = logging.getLogger(__name__)

SETTLE = 600.0
"""Seconds for which a historian may store a reading late; VOLTTRON's retry a failed write after 300."""
_FIRST_DELAY, _LONGEST_DELAY = 2.0, 60.0
_LONGEST_AFTER_ERROR = 300.0
_MAX_LINES = 10
"""How many incomplete gaps a round names in the log."""


class StopRequestedError(Exception):
    """The source stops."""


class OpenGap(NamedTuple):
    """A gap as it was when the filler read it; the fields are those of ``reception.Gap``."""

    topic: str
    path: str
    form: str
    start: Anchor
    end: Anchor
    position: int
    verified: bool | None

    @property
    def key(self) -> tuple[str, int]:
        """What identifies it: a device has one gap after each reading."""
        return self.topic, self.start.time


@dataclass
class GapState:
    """How far the filler is, which is ahead of what the spool has. Times are monotonic, in seconds."""

    end: int
    position: int
    verified: bool | None
    delay: float
    closed: bool = False
    divisor: int = 1
    """By what the size of a page is divided: grows after an answer that could not be used."""
    first_try: float | None = None
    next_try: float = 0.0
    reported: bool = False
    listed_again: bool = False

    def is_settled(self, gap: OpenGap, now: float) -> bool:
        """Return whether the historian has had the time to store all that it will store."""
        if self.first_try is None:
            self.first_try = now
        return not gap.end.id or now - self.first_try >= SETTLE


class GapStates:
    """The state of each open gap; pure, except for one line of the log."""

    def __init__(self) -> None:
        self._states: dict[tuple[str, int], GapState] = {}

    def __getitem__(self, gap: OpenGap) -> GapState:
        return self._states[gap.key]

    def keep(self, gaps: Sequence[OpenGap]) -> None:
        """Keep the states of these gaps alone, and begin those that are new. One that grew is open again."""
        states = {}
        for gap in gaps:
            state = self._states.get(gap.key)
            if state is None:
                state = GapState(gap.end.time, gap.position, gap.verified, _FIRST_DELAY)
            elif state.end != gap.end.time:
                state.end, state.closed, state.next_try = gap.end.time, False, 0.0
            states[gap.key] = state
        self._states = states

    def due(self, gaps: Sequence[OpenGap], now: float) -> tuple[list[OpenGap], float]:
        """Return the gaps to work on now, and the seconds until others are due if there are none."""
        waiting = [gap for gap in gaps if not self[gap].closed]
        due = [gap for gap in waiting if self[gap].next_try <= now]
        if due:
            return due, 0.0
        return [], min((self[gap].next_try - now for gap in waiting), default=_LONGEST_DELAY)

    def postpone(self, gap: OpenGap, now: float, longest: float = _LONGEST_DELAY) -> None:
        """Try the gap again later; each time after a longer delay."""
        state = self[gap]
        state.next_try = now + state.delay
        state.delay = min(state.delay * 2, longest)

    def failed(self, gap: OpenGap, reason: str, now: float) -> None:
        """Try the gap again later, with smaller pages; log the first failure of each gap."""
        state = self[gap]
        state.divisor = min(state.divisor * 2, 1 << 20)
        self.postpone(gap, now, _LONGEST_AFTER_ERROR)
        if not state.reported:
            state.reported = True
            log.warning(
                "the historian's answer about %s cannot be used: %s. It is asked again, up to every five "
                "minutes; this is logged once for each gap",
                gap.path[:200], reason[:500],
            )  # fmt: skip


class Round:
    """The time from the first open gap until none is open; it is logged at its beginning and its end."""

    def __init__(self) -> None:
        self.recovered = 0
        self._complete = 0
        self._incomplete = 0

    @classmethod
    def begin(cls, gaps: Sequence[OpenGap]) -> Round:
        """Log the beginning."""
        log.info(
            "back-fill begins: %d devices may have missed readings, the first after %s",
            len({gap.topic for gap in gaps}), to_historian_time(min(gap.start.time for gap in gaps)),
        )  # fmt: skip
        return cls()

    def closed(self, gap: OpenGap, why_incomplete: str) -> None:
        """Count a gap that is done. Log it if something may be missing."""
        if not why_incomplete:
            self._complete += 1
            return
        self._incomplete += 1
        if self._incomplete <= _MAX_LINES:
            log.warning(
                "readings of %s between %s and %s may be missing: %s%s",
                gap.path[:200], *(to_historian_time(anchor.time) for anchor in (gap.start, gap.end)),
                why_incomplete,
                "" if self._incomplete < _MAX_LINES else "; further gaps of this round are only counted",
            )  # fmt: skip

    def end(self) -> None:
        """Log the end."""
        log.info(
            "back-fill ended: %d readings recovered, %d gaps complete, %d incomplete",
            self.recovered, self._complete, self._incomplete,
        )  # fmt: skip
