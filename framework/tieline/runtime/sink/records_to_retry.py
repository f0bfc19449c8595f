"""Tracks the partitions that a sink task owns, which of them are paused, and the records held back."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from tieline.api import TopicPartition
from tieline.broker.port import Consumer
from tieline.broker.records import ConsumedRecord


class RecordsToRetry:
    """Holds records, and pauses and resumes partitions. Used by the task's thread.

    ``due``: when the held records are offered again. A partition is paused if the task asked for that, if
    records of it are held, or if all are paused.
    """

    def __init__(self) -> None:
        self.owned: frozenset[TopicPartition] = frozenset()
        self.all_paused = False
        self.due = 0.0
        self._consumer: Consumer
        self._records: list[ConsumedRecord] = []
        self._paused: set[TopicPartition] = set()

    def reset(self, consumer: Consumer) -> None:
        """Start with a new member of the group, which owns nothing yet."""
        self._consumer = consumer
        self.owned, self.all_paused, self._records, self._paused = frozenset(), False, [], set()

    def __len__(self) -> int:
        """Return how many records are held."""
        return len(self._records)

    @property
    def oldest_ms(self) -> int | None:
        """The timestamp of the first record that is held."""
        return self._records[0].timestamp if self._records else None

    def holds(self, partition: TopicPartition) -> bool:
        """Return whether records of this partition are held."""
        return any((r.topic, r.partition) == partition for r in self._records)

    def assign(self, partitions: Collection[TopicPartition]) -> None:
        """Add partitions that the task owns from now on."""
        self.owned |= frozenset(partitions)
        if self.all_paused:
            self._consumer.pause(partitions)

    def unassign(self, partitions: Collection[TopicPartition]) -> None:
        """Remove partitions that the task does not own any more, with the records held of them."""
        self.drop(partitions)
        self.owned -= frozenset(partitions)
        self._paused.difference_update(partitions)

    def pause(self, partitions: Collection[TopicPartition]) -> None:
        """Pause these partitions, because the task asks for it."""
        self._paused.update(partitions)
        self._consumer.pause(partitions)

    def resume(self, partitions: Collection[TopicPartition]) -> None:
        """Resume these partitions, because the task asks for it."""
        self._paused.difference_update(partitions)
        if not self.all_paused:
            self.release(partitions)

    def pause_all(self) -> None:
        """Pause every partition until ``resume_all``."""
        self.all_paused = True
        self._consumer.pause(self.owned)

    def resume_all(self) -> None:
        """Resume every partition that nothing else keeps paused."""
        if self.all_paused:
            self.all_paused = False
            self.release(self.owned)

    def hold(self, records: Sequence[ConsumedRecord], due: float) -> None:
        """Hold these records, behind those that are held already, and pause their partitions."""
        self.due = due
        self._records.extend(records)
        self._consumer.pause(_partitions(records))

    def take(self) -> list[ConsumedRecord]:
        """Return all held records and hold none; call ``release`` for their partitions afterwards."""
        records, self._records = self._records, []
        return records

    def release(self, partitions: Collection[TopicPartition]) -> None:
        """Resume these partitions unless something else keeps them paused."""
        paused = _partitions(self._records) | self._paused
        self._consumer.resume([p for p in partitions if p in self.owned and p not in paused])

    def drop(self, partitions: Collection[TopicPartition]) -> None:
        """Drop the held records of these partitions, which will be read again."""
        self._records = [r for r in self._records if (r.topic, r.partition) not in partitions]


def _partitions(records: Sequence[ConsumedRecord]) -> set[TopicPartition]:
    return {TopicPartition(*partition) for partition in {(r.topic, r.partition) for r in records}}
