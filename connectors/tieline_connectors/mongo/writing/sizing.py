"""How many documents one insert takes, and how long it may last; pure.

A slow link or a busy server answers a large insert too late, however often it comes again. So an insert
that timed out is tried again with half as many documents; inserts that end within half of the time-out let
the number grow by a quarter each, which then cannot time out on the same link. If a single document does
not make it, its time-out is doubled, up to ``longest``.
"""

from __future__ import annotations


class InsertSize:
    """``most``: documents of one insert. ``timeout``, ``longest``: seconds that one insert may last."""

    def __init__(self, most: int, timeout: float, longest: float) -> None:
        self._most = most
        self.timeout = timeout
        self._longest = max(timeout, longest)
        self.documents = most
        self.patience = timeout

    @property
    def limited(self) -> bool:
        """Whether it takes less, or lasts longer, than it was configured to."""
        return self.documents < self._most or self.patience > self.timeout

    @property
    def exhausted(self) -> bool:
        """Whether nothing is left to try: one document, and the longest time-out."""
        return self.documents == 1 and self.patience >= self._longest

    def timed_out(self, documents: int) -> None:
        """An insert of so many documents was not answered in time."""
        if documents > 1:
            self.documents = max(1, min(self.documents, documents // 2))
        else:
            self.documents = 1
            self.patience = min(self._longest, 2 * self.patience)

    def succeeded(self, documents: int, seconds: float) -> None:
        """An insert of so many documents was answered after so many seconds."""
        if seconds > self.timeout / 2:
            return
        self.patience = self.timeout
        if documents >= self.documents:
            self.documents = min(self._most, self.documents + max(1, self.documents // 4))
