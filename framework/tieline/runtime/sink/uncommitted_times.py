"""How old the records are that a sink task has read and not committed."""

from __future__ import annotations

from collections import deque

from tieline.api import TopicPartition


class UncommittedTimes:
    """The first timestamp of each batch of each partition until its offset is committed.

    Used by the task's thread; any thread may read ``oldest``.
    """

    def __init__(self) -> None:
        self.oldest: int | None = None
        """In ms since 1970; ``None`` if everything that was read is committed."""
        self._batches: dict[TopicPartition, deque[tuple[int, int]]] = {}

    def add(self, partition: TopicPartition, end: int, timestamp: int) -> None:
        """Note a batch: the offset after it, and the timestamp of its first record."""
        self._batches.setdefault(partition, deque()).append((end, timestamp))
        if self.oldest is None or timestamp < self.oldest:
            self.oldest = timestamp

    def commit(self, partition: TopicPartition, offset: int) -> None:
        """Drop the batches before a committed offset."""
        batches = self._batches.get(partition)
        while batches and batches[0][0] <= offset:
            batches.popleft()
        self._renew()

    def drop(self, partition: TopicPartition) -> None:
        """Drop all batches of a partition."""
        self._batches.pop(partition, None)
        self._renew()

    def _renew(self) -> None:
        self.oldest = min((batches[0][1] for batches in self._batches.values() if batches), default=None)
