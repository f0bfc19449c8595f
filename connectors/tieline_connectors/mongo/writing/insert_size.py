"""How many documents one insert has, and how long it may take; pure.

On a slow link, or with a busy server, a large insert times out however often it is retried. Therefore an
insert that timed out is retried with half as many documents. After each insert that ends within half of the
time-out, the number grows by a quarter, so that the next insert cannot time out on the same link. If a single
document times out, its time-out is doubled, up to ``max_timeout``.
"""

from __future__ import annotations


class InsertSize:
    """The size of the next insert. ``timeout`` and ``max_timeout`` are in seconds."""

    def __init__(self, max_documents: int, timeout: float, max_timeout: float) -> None:
        self._max_documents = max_documents
        self.timeout = timeout
        self._max_timeout = max(timeout, max_timeout)
        self.documents = max_documents
        self.insert_timeout = timeout

    @property
    def limited(self) -> bool:
        """Whether an insert is smaller, or may take longer, than configured."""
        return self.documents < self._max_documents or self.insert_timeout > self.timeout

    @property
    def exhausted(self) -> bool:
        """Whether an insert can be neither smaller nor longer."""
        return self.documents == 1 and self.insert_timeout >= self._max_timeout

    def timed_out(self, documents: int) -> None:
        """Note that an insert of so many documents timed out."""
        if documents > 1:
            self.documents = max(1, min(self.documents, documents // 2))
        else:
            self.documents = 1
            self.insert_timeout = min(self._max_timeout, 2 * self.insert_timeout)

    def succeeded(self, documents: int, seconds: float) -> None:
        """Note that an insert of so many documents was answered after so many seconds."""
        if seconds > self.timeout / 2:
            return
        self.insert_timeout = self.timeout
        if documents >= self.documents:
            self.documents = min(self._max_documents, self.documents + max(1, self.documents // 4))
