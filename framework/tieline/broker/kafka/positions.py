"""Where a consumer is in each of its partitions."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from tieline.api import TopicPartition
from tieline.broker.records import ConsumedRecord

_UNREADABLE_AFTER = 3  # times in a row that a batch must arrive damaged; on the way it is damaged only once


class ConsumerPositions:
    """The next offset of each partition, the ends that were reached, and the batches that were damaged.

    Used by one thread.
    """

    def __init__(self) -> None:
        self.next: dict[TopicPartition, int] = {}
        """The offset after the last record that was handed over."""
        self.seen_ends: dict[TopicPartition, int] = {}
        """The end when records were last confirmed to be of the topic that is known."""
        self._ends_reached: dict[TopicPartition, int] = {}
        self._unreadable: dict[TopicPartition, tuple[int | None, int]] = {}

    def advance(self, records: Sequence[ConsumedRecord]) -> dict[TopicPartition, int]:
        """Move past these records. Return each partition that went back, with the index of its first record.

        Offsets that go back are those of a new topic of the same name. The client reads it from its
        beginning without notice, and nothing known of the old one holds.
        """
        went_back: dict[TopicPartition, int] = {}
        current, next_offset = None, 0
        for index, (topic, number, offset, *_) in enumerate(records):
            if current is None or number != current.partition or topic != current.topic:  # they come in runs
                if current is not None:
                    self.next[current] = next_offset
                current = TopicPartition(topic, number)
                next_offset = self.next.get(current, 0)
            if offset < next_offset:
                went_back[current] = index
            next_offset = offset + 1
        if current is not None:
            self.next[current] = next_offset
        return went_back

    def reach_end(self, partition: TopicPartition, end: int) -> None:
        """Note that the client has read a partition up to its end."""
        self._ends_reached[partition] = end

    def take_ends(self, waiting: Collection[tuple[str, int]]) -> None:
        """Move to the ends that were reached, except where records still wait: those come first."""
        for partition in self._ends_reached.keys() - waiting:
            self.next[partition] = max(self._ends_reached.pop(partition), self.next.get(partition, 0))

    def fail_to_read(self, partition: TopicPartition) -> bool:
        """Count a damaged batch at the position. Return whether it can be given up."""
        position = self.next.get(partition)
        before, times = self._unreadable.get(partition, (position, 0))
        times = times + 1 if before == position else 1
        self._unreadable[partition] = (position, times)
        return times >= _UNREADABLE_AFTER

    def replace(self, partition: TopicPartition) -> tuple[int, int]:
        """Forget the position in a topic that was replaced. Return the range of it that was not read."""
        first = self.next.pop(partition, None)
        self._ends_reached.pop(partition, None)
        end = max(self.seen_ends.pop(partition, 0), first or 0)
        return end if first is None else first, end

    def drop(self, partitions: Collection[TopicPartition]) -> None:
        """Forget partitions that are not owned any more."""
        for partition in partitions:
            self.next.pop(partition, None)
            self.seen_ends.pop(partition, None)
            self._ends_reached.pop(partition, None)
            self._unreadable.pop(partition, None)

    def lag(
        self, ends: Mapping[TopicPartition, int | None], fetched: Mapping[TopicPartition, int]
    ) -> dict[TopicPartition, int | None]:
        """Return how far each partition of ``fetched`` is behind its end; ``None`` if that is unknown.

        ``fetched``: the end that the client saw while it fetched. ``ends``: what the brokers answered.
        """
        lag: dict[TopicPartition, int | None] = {}
        for partition, seen in fetched.items():
            position, end = self.next.get(partition), ends.get(partition, seen)
            if position is None or end is None or max(end, seen) < 0:
                lag[partition] = None
            else:
                lag[partition] = max(0, end - position, seen - position)
        return lag
