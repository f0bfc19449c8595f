"""Which time is believed: the wall clock as long as it agrees with the monotonic one; pure.

A computer's wall clock can be set, in either direction and by years; its monotonic clock cannot. While the
two go together, the wall clock is believed. When they part by more than `CLOCK_STEP`, nobody knows which
time was wrong, the one before or the one since: the clock is **in doubt**. The time that was believed goes
on by the monotonic clock, so that no time of a clock in doubt is ever stored, and nothing is begun by it.
The doubt ends when the clock is back where it was believed before, when it has stood for some time (it was
corrected), or when something that knows vouches for it.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

CLOCK_STEP = 1_000_000
"""Wall and monotonic clock may part by so much at once before the wall clock is in doubt; microseconds."""

_SLEW = 1000
"""A clock that is only made faster or slower (NTP does at most 1 in 2,000) is followed, up to 1 in this."""

_EARLIER = 4
"""So many clocks that were believed before are remembered."""
_STOOD_STILL = 2_000_000
"""Who reads the clock less often than this was not running; microseconds."""


class Now(NamedTuple):
    """One moment, in microseconds.

    ``wall``: the time that is believed. ``monotonic``: since the computer was started; it never goes back.
    ``doubt``: why the wall clock is not believed now, empty: it is. ``shown``: what the wall clock says.
    ``before``: what the time is by a clock that was believed until lately and was ahead of this one, 0: none.
    ``boot``: names this start of the computer, within which ``monotonic`` means the same for every process;
    empty: not known. ``vouched``: something beside the clock itself says that ``wall`` is right.
    """

    wall: int
    monotonic: int
    doubt: str = ""
    shown: int = 0
    before: int = 0
    boot: str = ""
    vouched: bool = False

    @property
    def offset(self) -> int:
        """What the believed time is ahead of the monotonic clock."""
        return self.wall - self.monotonic


class Seen(NamedTuple):
    """A clock that was believed: ``offset`` as in `Now`, ``at`` a moment of the monotonic clock."""

    offset: int
    at: int


class ClockWatch:
    """Turns what both clocks say into what is believed. Used by one thread at a time.

    ``believe``: how long a clock that was set must stand until it is believed. ``stale``: after it was
    believed and has gone back, how long both times count against a command, so that what has waited unread
    since before is not taken for new; a process that stands still reads nothing, so that time is not
    counted. ``floor``: no clock that is right is earlier. Microseconds.
    """

    def __init__(self, believe: int, stale: int, floor: int = 0) -> None:
        self._believe = believe
        self._stale = stale
        self._floor = floor
        self._began: int | None = None
        self._offset = self._last = 0
        self._known_at = -1
        self._standing: Seen | None = None
        self._earlier: deque[int] = deque(maxlen=_EARLIER)
        self._before = self._stale_left = 0

    def read(self, wall: int, monotonic: int, boot: str = "") -> Now:
        """Believe this reading of both clocks, or doubt it."""
        offset = wall - monotonic
        if self._began is None:
            self._began, self._offset = monotonic, offset
        elif abs(offset - self._offset) <= CLOCK_STEP:
            most = max(0, monotonic - self._last) // _SLEW
            self._offset += min(max(offset - self._offset, -most), most)
            self._standing = None
        elif self._standing is None or abs(offset - self._standing.offset) > CLOCK_STEP:
            self._standing = Seen(offset, monotonic)
        if self._standing is not None and (
            monotonic - self._standing.at >= self._believe
            or monotonic + self._offset < self._floor
            or any(abs(offset - known) <= CLOCK_STEP for known in self._earlier)
        ):
            self._believe_now(offset, monotonic)
        else:
            self._stale_left -= min(monotonic - self._last, _STOOD_STILL)
        self._last = monotonic
        before = monotonic + self._before if self._stale_left > 0 else 0
        return Now(monotonic + self._offset, monotonic, self._doubt(offset), wall, before, boot)

    def recall(self, seen: Seen) -> None:
        """Within this start of the computer this clock was believed then, by whoever wrote it down."""
        if self._began is None or not self._known_at < seen.at <= self._began:
            return
        self._known_at = seen.at
        if abs(seen.offset - self._offset) > CLOCK_STEP:
            self._standing = self._standing or Seen(self._offset, self._began)
        self._offset = seen.offset

    def vouch(self, wall: int, monotonic: int) -> None:
        """The wall clock is right: believe it at once."""
        self._believe_now(wall - monotonic, monotonic)

    def _believe_now(self, offset: int, monotonic: int) -> None:
        if offset < self._offset - CLOCK_STEP:
            self._before, self._stale_left = self._offset, self._stale
        self._earlier.append(self._offset)
        self._offset, self._known_at, self._standing = offset, monotonic, None

    def _doubt(self, offset: int) -> str:
        if self._standing is None:
            return ""
        step = (offset - self._offset) / 1_000_000
        return f"the clock was set {'ahead' if step > 0 else 'back'} by {abs(step):.0f} s"
