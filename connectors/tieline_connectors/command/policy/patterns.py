"""Match patterns of issuers and points, in a time that no pattern can make exponential; pure.

In a name ``*`` stands for any characters. A point's pattern is compared segment by segment: ``*`` stands for
any characters of one segment, ``**`` for any number of segments, also zero. Both sides are compared by their
keys (`point.key_of`), so that ``AHU1`` does not evade a rule that denies ``campus/ahu1/**``.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TypeAlias

from tieline_connectors.command.model.point import WILDCARD, key_of, pattern_key

_Parts: TypeAlias = "tuple[str, ...]"
"""The texts between the wildcards."""


def matches_name(pattern: str, name: str) -> bool:
    """Return whether an issuer's name matches; here case matters."""
    return _glob(tuple(pattern.split("*")), name)


def matches_point(pattern: str, point: str) -> bool:
    """Return whether a point's path matches."""
    return _segments(_compiled(pattern), key_of(point).split("/"))


@functools.lru_cache(maxsize=20_000)
def _compiled(pattern: str) -> tuple[_Parts | None, ...]:
    """Return the segments of a pattern; ``None`` stands for ``**``."""
    segments = pattern_key(pattern)
    return tuple(None if s == WILDCARD * 2 else tuple(s.split(WILDCARD)) for s in segments)


def _segments(pattern: Sequence[_Parts | None], path: Sequence[str]) -> bool:
    used = {0}  # how many segments of the path the pattern so far may have matched
    for part in pattern:
        if part is None:
            used = set(range(min(used), len(path) + 1))
        else:
            used = {count + 1 for count in used if count < len(path) and _glob(part, path[count])}
        if not used:
            return False
    return len(path) in used


def _glob(parts: _Parts, text: str) -> bool:
    if len(parts) == 1:
        return parts[0] == text
    first, *middle, last = parts
    if len(text) < len(first) + len(last) or not text.startswith(first) or not text.endswith(last):
        return False
    start, end = len(first), len(text) - len(last)
    for part in middle:  # the leftmost match is always the best one
        index = text.find(part, start, end)
        if index < 0:
            return False
        start = index + len(part)
    return True
