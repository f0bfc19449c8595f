"""Which partitions of a sink flow, and what is held of those that do not."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from tieline.api import TopicPartition
from tieline.broker.port import ConsumedRecord, Consumer


class HeldRecords:
    """A partition stands still when the task asked for that, when records of it are held, or when all do
    (``stopped``). Used by the task's thread; ``due`` is when what is held shall be offered again.
    """

    def __init__(self) -> None:
        self.owned: frozenset[TopicPartition] = frozenset()
        self.stopped = False
        self.due = 0.0
        self._consumer: Consumer
        self._held: list[ConsumedRecord] = []
        self._paused: set[TopicPartition] = set()

    def joined(self, consumer: Consumer) -> None:
        """A new member of the group, which owns nothing yet."""
        self._consumer = consumer
        self.owned, self.stopped, self._held, self._paused = frozenset(), False, [], set()

    @property
    def holding(self) -> bool:
        """Some records wait to be offered again."""
        return bool(self._held)

    @property
    def held(self) -> int:
        """How many records wait to be offered again."""
        return len(self._held)

    def holds(self, partition: TopicPartition) -> bool:
        """Some records of this partition wait to be offered again."""
        return any((r.topic, r.partition) == partition for r in self._held)

    def gained(self, partitions: Collection[TopicPartition]) -> None:
        """The task owns more."""
        self.owned |= frozenset(partitions)
        if self.stopped:
            self._consumer.pause(partitions)

    def gone(self, partitions: Collection[TopicPartition]) -> None:
        """The task owns these no longer."""
        self.forget(partitions)
        self.owned -= frozenset(partitions)
        self._paused.difference_update(partitions)

    def pause(self, partitions: Collection[TopicPartition]) -> None:
        """The task wants nothing of these."""
        self._paused.update(partitions)
        self._consumer.pause(partitions)

    def resume(self, partitions: Collection[TopicPartition]) -> None:
        """The task wants these again."""
        self._paused.difference_update(partitions)
        if not self.stopped:
            self.release(partitions)

    def stop(self) -> None:
        """Let everything stand still."""
        self.stopped = True
        self._consumer.pause(self.owned)

    def go_on(self) -> None:
        """The end of ``stop``."""
        if self.stopped:
            self.stopped = False
            self.release(self.owned)

    def hold(self, records: Sequence[ConsumedRecord], due: float) -> None:
        """Keep these for later, behind what is held already."""
        self.due = due
        self._held.extend(records)
        self._consumer.pause(_partitions(records))

    def take(self) -> list[ConsumedRecord]:
        """All that is held; ``release`` its partitions afterwards."""
        held, self._held = self._held, []
        return held

    def release(self, partitions: Collection[TopicPartition]) -> None:
        """Let these flow, unless something else holds them up."""
        still = _partitions(self._held) | self._paused
        self._consumer.resume([p for p in partitions if p in self.owned and p not in still])

    def forget(self, partitions: Collection[TopicPartition]) -> None:
        """What is held of these comes again by itself."""
        self._held = [r for r in self._held if (r.topic, r.partition) not in partitions]


def _partitions(records: Sequence[ConsumedRecord]) -> set[TopicPartition]:
    return {TopicPartition(*at) for at in {(r.topic, r.partition) for r in records}}
