"""How many of the last records may fail before a task stops. Pure.

A broken converter fails on every record, and would make a million dead letters before an operator looks. So
a task stops when more than the tolerated number of its last records failed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection

from tieline.config.dead_letters import Window


class ToleranceWindow:
    """The last records of a task, in the order in which they ended. ``window`` ``None`` tolerates all."""

    def __init__(self, window: Window | None) -> None:
        self.window = window
        self._records = 0
        self._failed: deque[int] = deque()  # their numbers, no older than the window

    def exceeded_at(self, failures: Collection[int]) -> int | None:
        """Return the index in the next batch at which too many records have failed; ``None`` if nowhere.

        ``failures``: the indexes of those that failed. The window does not change.
        """
        if self.window is None or not failures:
            return None
        tolerated, records = self.window
        failed = deque(self._failed)
        for index in sorted(failures):
            self._append(failed, self._records + index, records)
            if len(failed) > tolerated:
                return index
        return None

    def advance(self, count: int, failures: Collection[int] = ()) -> None:
        """Note that ``count`` more records have ended, and which of them failed."""
        if self.window is not None:
            for index in sorted(failures):
                self._append(self._failed, self._records + index, self.window.records)
        self._records += count

    def fail_late(self, failures: Collection[int]) -> int | None:
        """Note that records which count as good already have failed; return the first one too many."""
        if self.window is None:
            return None
        for index in sorted(failures):
            self._append(self._failed, self._records - 1, self.window.records)
            if len(self._failed) > self.window.tolerated:
                return index
        return None

    @staticmethod
    def _append(failed: deque[int], number: int, records: int) -> None:
        failed.append(number)
        while failed[0] <= number - records:
            failed.popleft()
