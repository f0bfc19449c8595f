"""Waiting for what becomes of commands that were sent, and the exit status that it makes; pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from tieline_connectors.command.model.command import TERMINAL

NO_RESULT = "NO_RESULT"
STATUS: Mapping[str, int] = {
    "SUCCEEDED": 0,
    "REJECTED": 10,
    "EXPIRED": 11,
    "FAILED": 12,
    "MISMATCH": 12,
    NO_RESULT: 13,
    "UNKNOWN": 14,
}
"""Exit status by state, from the harmless up to what a person has to look at: of several the highest."""


class Watch:
    """The commands that were sent, by id, and the end of each."""

    def __init__(self, ids: Iterable[str]) -> None:
        self._ends: dict[str, str | None] = dict.fromkeys(ids)
        self._seen: set[tuple[str, str, Any]] = set()

    def sees(self, value: Any) -> bool:
        """Whether this value of the results topic is news of one of ours."""
        if not isinstance(value, Mapping):
            return False
        command_id, state = value.get("command_id"), value.get("state")
        if not isinstance(command_id, str) or command_id not in self._ends or not isinstance(state, str):
            return False
        news = command_id, state, str(value.get("at"))
        if news in self._seen:
            return False
        self._seen.add(news)
        if state in TERMINAL and self._ends[command_id] is None:
            self._ends[command_id] = state
        return True

    @property
    def waiting(self) -> int:
        """How many have not ended."""
        return sum(end is None for end in self._ends.values())

    @property
    def ends(self) -> Counter[str]:
        """How many ended in which state."""
        return Counter(end or NO_RESULT for end in self._ends.values())

    @property
    def status(self) -> int:
        """The exit status."""
        return max((STATUS[end] for end in self.ends), default=0)
