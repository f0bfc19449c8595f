"""When the records of a spool were received, roughly."""

from __future__ import annotations

from bisect import bisect_right

_APART_MS = 1_000
_MOST = 10_000


class ReceptionTimes:
    """Notes the time of some batches. The receiver's thread writes, any thread may read."""

    def __init__(self) -> None:
        self._marks: list[tuple[int, int]] = []
        self._apart_ms = _APART_MS

    def note(self, first: int, now_ms: int) -> None:
        """Note a batch by the position of its first record, unless the last one is a moment old."""
        marks = self._marks
        if marks and now_ms - marks[-1][1] < self._apart_ms:
            return
        if len(marks) >= _MOST:  # much waits: half as exact is exact enough
            marks, self._apart_ms = marks[::2], self._apart_ms * 2
        self._marks = [*marks, (first, now_ms)]

    def drop_before(self, position: int) -> None:
        """Drop what is not needed for records at and after a position."""
        marks = self._marks
        index = bisect_right(marks, (position, 1 << 62)) - 1
        if index > 0:
            self._marks = marks[index:]

    def of(self, position: int) -> int | None:
        """Return when a record was received, in ms since 1970; ``None`` if an earlier process received it."""
        marks = self._marks
        index = bisect_right(marks, (position, 1 << 62)) - 1
        return marks[index][1] if index >= 0 else None
