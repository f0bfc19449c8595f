"""Track the results of commands that were sent, and derive the exit status; pure."""

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
"""Exit status by state: the more serious, the higher. Several commands exit with the highest."""


class CommandTracker:
    """The commands that were sent, by id, with the final state of each."""

    def __init__(self, ids: Iterable[str]) -> None:
        self._ends: dict[str, str | None] = dict.fromkeys(ids)
        self._seen: set[tuple[str, str, Any]] = set()

    def add(self, value: Any) -> bool:
        """Take in a value of the results topic; return whether it is a new result of a tracked command."""
        if not isinstance(value, Mapping):
            return False
        command_id, state = value.get("command_id"), value.get("state")
        if not isinstance(command_id, str) or command_id not in self._ends or not isinstance(state, str):
            return False
        result = command_id, state, str(value.get("at"))
        if result in self._seen:
            return False
        self._seen.add(result)
        if state in TERMINAL and self._ends[command_id] is None:
            self._ends[command_id] = state
        return True

    @property
    def waiting(self) -> int:
        """How many commands have not ended."""
        return sum(end is None for end in self._ends.values())

    @property
    def ends(self) -> Counter[str]:
        """How many commands ended in each state."""
        return Counter(end or NO_RESULT for end in self._ends.values())

    @property
    def status(self) -> int:
        """The exit status."""
        return max((STATUS[end] for end in self.ends), default=0)
