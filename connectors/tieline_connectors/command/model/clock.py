"""Decide which time is believed: the wall clock while it agrees with the monotonic clock; pure.

A computer's wall clock can be set, in either direction and by years; its monotonic clock cannot. While the
two advance together, the wall clock is believed. If they differ by more than `CLOCK_STEP`, it is unknown
which time was wrong, the one before or the one since: the clock is **in doubt**. The believed time then
advances by the monotonic clock. So no time of a clock in doubt is ever stored, and no command is started by
it. The doubt ends when the clock is set back to a time that was believed before, when it has been stable for
some time (it was corrected), or when NTP or an operator confirms it.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

CLOCK_STEP = 1_000_000
"""If wall and monotonic clock differ by more than this, the wall clock is in doubt; microseconds."""

_SLEW = 1000
"""A clock that only runs faster or slower (NTP does at most 1 in 2,000) is followed, up to 1 in this."""

_MAX_EARLIER = 4
"""How many clocks that were believed before are remembered."""
_SUSPENDED = 2_000_000
"""A process that reads the clock less often than this was not running; microseconds."""


class Now(NamedTuple):
    """One moment, in microseconds.

    ``wall``: the time that is believed. ``monotonic``: since the computer was started; it never goes back.
    ``doubt``: why the wall clock is not believed now, empty if it is. ``raw_wall``: what the wall clock says.
    ``earlier_wall``: the time by a clock that was believed until recently and was ahead of this one, 0 if
    there is none. ``boot``: names this boot of the computer, within which ``monotonic`` means the same for
    every process; empty if unknown. ``confirmed``: NTP or an operator confirms ``wall``.
    """

    wall: int
    monotonic: int
    doubt: str = ""
    raw_wall: int = 0
    earlier_wall: int = 0
    boot: str = ""
    confirmed: bool = False

    @property
    def offset(self) -> int:
        """How far the believed time is ahead of the monotonic clock."""
        return self.wall - self.monotonic

    @property
    def clock_to_store(self) -> BelievedClock:
        """The clock that the next process of this boot has to start from.

        It is the one that is believed, also in doubt: otherwise a restart would end the doubt. While an
        earlier clock still counts, it is that one.
        """
        wall = self.earlier_wall or self.wall
        return BelievedClock(wall - self.monotonic, self.monotonic)


class BelievedClock(NamedTuple):
    """A clock that was believed: ``offset`` as in `Now`, ``at`` a moment of the monotonic clock."""

    offset: int
    at: int


class ClockWatch:
    """Derives the believed time from what both clocks say. Used by one thread at a time.

    ``believe``: how long a clock that was set must be stable until it is believed. ``floor``: no correct
    clock is earlier. ``stale``: how long, after a believed clock has gone back, both times count against a
    command, so that a command that has waited unread since before is not considered new. A suspended process
    reads nothing, so that time does not count. All in microseconds.
    """

    def __init__(self, believe: int, stale: int, floor: int = 0) -> None:
        self._believe = believe
        self._stale = stale
        self._floor = floor
        self._first_read_at: int | None = None
        self._offset = self._last_read_at = 0
        self._believed_at = -1
        self._candidate: BelievedClock | None = None
        self._earlier: deque[int] = deque(maxlen=_MAX_EARLIER)
        self._earlier_offset = self._stale_left = 0

    def read(self, wall: int, monotonic: int, boot: str = "") -> Now:
        """Return the moment after this reading of both clocks, believed or in doubt."""
        offset = wall - monotonic
        if self._first_read_at is None:
            self._first_read_at, self._offset = monotonic, offset
        elif abs(offset - self._offset) <= CLOCK_STEP:
            most = max(0, monotonic - self._last_read_at) // _SLEW
            self._offset += min(max(offset - self._offset, -most), most)
            self._candidate = None
        elif self._candidate is None or abs(offset - self._candidate.offset) > CLOCK_STEP:
            self._candidate = BelievedClock(offset, monotonic)
        if self._candidate is not None and (
            monotonic - self._candidate.at >= self._believe
            or monotonic + self._offset < self._floor
            or any(abs(offset - known) <= CLOCK_STEP for known in self._earlier)
        ):
            self._believe_now(offset, monotonic)
        else:
            self._stale_left -= min(monotonic - self._last_read_at, _SUSPENDED)
        self._last_read_at = monotonic
        earlier_wall = monotonic + self._earlier_offset if self._stale_left > 0 else 0
        return Now(monotonic + self._offset, monotonic, self._doubt(offset), wall, earlier_wall, boot)

    def restore(self, clock: BelievedClock) -> None:
        """Take over a clock that an earlier process believed within this boot of the computer."""
        if self._first_read_at is None or not self._believed_at < clock.at <= self._first_read_at:
            return
        self._believed_at = clock.at
        if abs(clock.offset - self._offset) > CLOCK_STEP:
            self._candidate = self._candidate or BelievedClock(self._offset, self._first_read_at)
        self._offset = clock.offset

    def confirm(self, wall: int, monotonic: int) -> None:
        """Believe the wall clock at once: it is confirmed."""
        self._believe_now(wall - monotonic, monotonic)

    def _believe_now(self, offset: int, monotonic: int) -> None:
        if offset < self._offset - CLOCK_STEP:
            self._earlier_offset, self._stale_left = self._offset, self._stale
        self._earlier.append(self._offset)
        self._offset, self._believed_at, self._candidate = offset, monotonic, None

    def _doubt(self, offset: int) -> str:
        if self._candidate is None:
            return ""
        step = (offset - self._offset) / 1_000_000
        return f"the clock was set {'ahead' if step > 0 else 'back'} by {abs(step):.0f} s"
