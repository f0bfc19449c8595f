"""When a value is stale: it is older than three of the point's own intervals; pure.

Times and lengths of time are in microseconds.
"""

from __future__ import annotations

from collections.abc import Sequence

SECOND = 1_000_000
SHORTEST = 30 * SECOND
"""No value is stale before."""
UNKNOWN = 15 * 60 * SECOND
"""The limit for a point whose interval is not known yet."""
REMEMBERED = 5
_INTERVALS = 3


def with_gap(gaps: Sequence[int], previous: int, time: int) -> tuple[int, ...]:
    """Return the last gaps between the times of values, with the one that this value ends."""
    if time <= previous:  # the same value, published in two ways, or an old one
        return tuple(gaps)
    return (*gaps[-(REMEMBERED - 1) :], time - previous)


def limit_of(gaps: Sequence[int]) -> int:
    """Return the age from which a value is stale.

    The interval is the second longest of the last gaps, so that one outage does not count as the interval,
    and a point that is published irregularly is not stale after each short gap.
    """
    if not gaps:
        return UNKNOWN
    longest = sorted(gaps)
    return max(SHORTEST, _INTERVALS * longest[-2 if len(gaps) > 2 else -1])
