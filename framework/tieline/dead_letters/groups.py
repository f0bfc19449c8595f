"""Letters grouped by their cause, with one example in words. Pure."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass, field

from tieline.dead_letters.letter import DeadLetter

OPEN = "open"
"""The state of a letter that was neither replayed nor dropped."""


@dataclass
class CauseGroup:
    """The letters of one cause. ``first`` and ``last``: when the earliest and the latest of them failed."""

    fingerprint: str
    example: DeadLetter
    """The latest letter."""
    count: int = 0
    """Letters with different ids."""
    first: int | None = None
    last: int | None = None
    connectors: set[str] = field(default_factory=set)
    states: Counter[str] = field(default_factory=Counter)
    """How many are open, replayed and dropped."""

    def add(self, letter: DeadLetter, state: str) -> None:
        """Count a letter."""
        self.count += 1
        self.states[state] += 1
        if letter.connector:
            self.connectors.add(letter.connector)
        time = letter.failed_at
        if time is None:
            return
        if self.first is None or time < self.first:
            self.first = time
        if self.last is None or time >= self.last:
            self.last, self.example = time, letter


class Grouping:
    """Groups letters that are added one after the other. A repeated letter counts once."""

    def __init__(self) -> None:
        self._groups: dict[str, CauseGroup] = {}
        self._known: set[bytes] = set()
        self.repeated = 0
        """Letters that were there before, since a killed worker writes some twice."""

    def add(self, letter: DeadLetter, state: str = OPEN) -> bool:
        """Add a letter. Return ``False`` if it is a repetition."""
        known = letter_key(letter)
        if known in self._known:
            self.repeated += 1
            return False
        self._known.add(known)
        fingerprint = letter.fingerprint
        group = self._groups.get(fingerprint)
        if group is None:
            group = self._groups[fingerprint] = CauseGroup(fingerprint, letter)
        group.add(letter, state)
        return True

    @property
    def groups(self) -> list[CauseGroup]:
        """All groups, the most frequent cause first."""
        return sorted(self._groups.values(), key=lambda group: (-group.count, group.fingerprint))


def letter_key(letter: DeadLetter) -> bytes:
    """Return what identifies a letter among those of its topic, in 16 bytes: ids may be long."""
    return hashlib.blake2b(letter.id.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def describe(letter: DeadLetter) -> str:
    """Return a letter in words: where, which field, what was expected, and the fix."""
    cause = letter.cause
    parts = [f"the record {letter.where or 'of an unknown place'}"]
    if cause.stage:
        parts.append(f"failed at {cause.stage}")
    sentence = " ".join(parts)
    message = cause.message or cause.error or "no cause is known: the letter has no headers with one"
    sentence += f": {message}"
    if cause.field and cause.field not in message:
        sentence += f". Field: {cause.field}"
    if cause.expected and cause.expected not in message:
        sentence += f". Expected: {cause.expected}"
    return f"{sentence}. {cause.fix}" if cause.fix else sentence
