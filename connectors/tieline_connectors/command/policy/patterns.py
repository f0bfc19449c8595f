"""Patterns of issuers and points; pure, and in a time that nobody's pattern can blow up.

In a name ``*`` stands for any characters. A point's pattern is compared segment by segment: ``*`` stands
for any characters of one segment, ``**`` for any number of segments, none included. Both sides are compared
by their keys (`point.key_of`): a rule that denies ``campus/ahu1/**`` is not to be got round by ``AHU1``.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TypeAlias

from tieline_connectors.command.model.point import WILDCARD, key_of, pattern_key

_Parts: TypeAlias = "tuple[str, ...]"
"""The texts between the wildcards."""


def matches_name(pattern: str, name: str) -> bool:
    """Whether an issuer's name fits; here capitals matter."""
    return _glob(tuple(pattern.split("*")), name)


def matches_point(pattern: str, point: str) -> bool:
    """Whether a point's path fits."""
    return _segments(_compiled(pattern), key_of(point).split("/"))


@functools.lru_cache(maxsize=20_000)
def _compiled(pattern: str) -> tuple[_Parts | None, ...]:
    """The segments of a pattern; none stands for ``**``."""
    segments = pattern_key(pattern)
    return tuple(None if s == WILDCARD * 2 else tuple(s.split(WILDCARD)) for s in segments)


def _segments(pattern: Sequence[_Parts | None], path: Sequence[str]) -> bool:
    fits = {0}  # how many segments of the path the pattern so far may have used up
    for part in pattern:
        if part is None:
            fits = set(range(min(fits), len(path) + 1))
        else:
            fits = {used + 1 for used in fits if used < len(path) and _glob(part, path[used])}
        if not fits:
            return False
    return len(path) in fits


def _glob(parts: _Parts, text: str) -> bool:
    if len(parts) == 1:
        return parts[0] == text
    first, *middle, last = parts
    if len(text) < len(first) + len(last) or not text.startswith(first) or not text.endswith(last):
        return False
    at, end = len(first), len(text) - len(last)
    for part in middle:  # the leftmost place is always the best one
        found = text.find(part, at, end)
        if found < 0:
            return False
        at = found + len(part)
    return True
