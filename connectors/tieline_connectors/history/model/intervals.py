"""The intervals into which readings and rollups are divided; pure.

A row's key begins with its hour, not with its point: the rows of a few hours are adjacent on the disk, so
that a transaction touches few pages, and the oldest rows can be deleted page by page.
"""

from __future__ import annotations

SECOND = 1_000_000
FIVE_MINUTES = 300 * SECOND
HOUR = 3600 * SECOND
DAY = 24 * HOUR

SLOTS_PER_HOUR = HOUR // FIVE_MINUTES

MIDDLE = HOUR // 2
"""``at`` of a reading counts from the middle of its hour, so that it fits into four bytes."""

MAX_TIME = 2**62
"""Times are less than this many microseconds from 1970."""


def split(time: int) -> tuple[int, int]:
    """Return the hour of a time in microseconds, and ``at`` in that hour."""
    hour, rest = divmod(time, HOUR)
    return hour, rest - MIDDLE


def join(hour: int, at: int) -> int:
    """Return the time in microseconds of an hour and ``at`` in it."""
    return hour * HOUR + at + MIDDLE


def round_up(time: int, width: int) -> int:
    """Return the first multiple of ``width`` that is not before a time."""
    return -(-time // width) * width
