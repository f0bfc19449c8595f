"""Patterns of issuers and points; pure, and in a time that nobody's pattern can blow up.

In a name ``*`` stands for any characters. A point's pattern is compared segment by segment: ``*`` stands
for any characters of one segment, ``**`` for any number of segments, none included. Capitals and small
letters are the same, because VOLTTRON knows a device by both: a rule that denies ``campus/ahu1/**`` is
not to be got round by writing ``AHU1``.
"""

from __future__ import annotations

from collections.abc import Sequence

from tieline_connectors.command.command import key_of


def matches_name(pattern: str, name: str) -> bool:
    """Whether an issuer's name fits; here capitals matter."""
    return _glob(pattern, name)


def matches_point(pattern: str, point: str) -> bool:
    """Whether a point's path fits."""
    return _segments(key_of(pattern).split("/"), key_of(point).split("/"))


def _segments(pattern: Sequence[str], path: Sequence[str]) -> bool:
    fits = {0}  # how many segments of the path the pattern so far may have used up
    for part in pattern:
        if part == "**":
            fits = set(range(min(fits), len(path) + 1))
        else:
            fits = {used + 1 for used in fits if used < len(path) and _glob(part, path[used])}
        if not fits:
            return False
    return len(path) in fits


def _glob(pattern: str, text: str) -> bool:
    if "*" not in pattern:
        return pattern == text
    first, *middle, last = pattern.split("*")
    if len(text) < len(first) + len(last) or not text.startswith(first) or not text.endswith(last):
        return False
    at, end = len(first), len(text) - len(last)
    for part in middle:  # the leftmost place is always the best one
        found = text.find(part, at, end)
        if found < 0:
            return False
        at = found + len(part)
    return True
