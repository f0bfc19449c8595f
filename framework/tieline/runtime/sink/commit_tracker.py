"""How far a sink has come: what was handed over, what of it is safe, what is committed."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from tieline.api import TopicPartition
from tieline.broker.port import ConsumedRecord
from tieline.runtime.sink.changelog import TaskChangelogs
from tieline.runtime.task.ledger import Counts, DeliveryLedger, Entry

Store = Callable[[Mapping[TopicPartition, int]], bool]
"""Stores offsets; false: they are on their way."""


class CommitTracker:
    """The delivery ledger of a sink's task. A partition with a changelog commits through that: it has one
    writer for all that concerns it, so nothing sets its offset back.
    """

    def __init__(self, changelogs: TaskChangelogs) -> None:
        self._changelogs = changelogs
        self._ledger: DeliveryLedger[TopicPartition, int] = DeliveryLedger()
        self._positions: dict[TopicPartition, int] = {}
        self._delivered_of: dict[Entry[TopicPartition, int], array[int]] = {}
        """The offsets of an entry's records, but for the filtered ones: a task may call a part of it safe."""

    @property
    def counts(self) -> Counts:
        """The ledger's totals."""
        return self._ledger.counts

    def written(self, batch: Sequence[ConsumedRecord], kept: Collection[int], done: Sequence[bool]) -> None:
        """Enter the records that are done; those that are not in ``kept`` were filtered.

        One entry a partition; one a record where a changelog may move the offset to within the batch.
        """
        if not self._changelogs.open:
            self._enter(batch, kept, done)
            return
        alive = set(kept)
        for index, record in enumerate(batch):
            if done[index]:
                self._enter([record], [0] if index in alive else [], [True])

    def refused(self, record: ConsumedRecord) -> None:
        """The task has dealt with this one by itself, durably."""
        at = TopicPartition(record.topic, record.partition)
        self._positions[at] = record.offset + 1
        self._ledger.settle(self._ledger.dispatch(at, record.offset + 1, 1), delivered=1)

    def passed_over(self, partition: TopicPartition, offset: int) -> None:
        """Commit ``offset``, before which the log has nothing, once what was read before it is safe."""
        self._positions[partition] = offset
        self._ledger.dispatch(partition, offset, 0)

    def reached(self, only: Collection[TopicPartition] | None) -> dict[TopicPartition, int]:
        """The positions after what was handed over and is not committed."""
        return {p: o for p, o in self._positions.items() if only is None or p in only}

    def settle(self, safe: Mapping[TopicPartition, int]) -> None:
        """The task calls these safe; what its changelogs have reached is."""
        self._settle(safe)
        self._settle(self._changelogs.offsets())

    def commit(self, store: Store, only: Collection[TopicPartition] | None) -> bool:
        """Store what is safe; whether something was stored. Raises what ``store`` or a changelog raises: what
        is not stored then is the next time, or when ``stored`` is told.
        """
        done = False
        plain: dict[TopicPartition, int] = {}
        safe = {p: o for p, o in self._ledger.committable().items() if only is None or p in only}
        for partition, offset in safe.items():
            changelog = self._changelogs.open.get(partition)
            if changelog is None:
                plain[partition] = offset
            else:
                changelog.commit(offset)
                self.stored({partition: offset})
                done = True
        if plain and store(plain):
            self.stored(plain)
            done = True
        return done

    def stored(self, offsets: Mapping[TopicPartition, int]) -> None:
        """These offsets, which ``commit`` gave to its ``store``, are stored."""
        self._ledger.committed(offsets)
        for partition, offset in offsets.items():
            if self._positions.get(partition) == offset:
                del self._positions[partition]

    def forget(self, partitions: Collection[TopicPartition]) -> None:
        """What is in flight of these comes again."""
        for partition in partitions:
            self._positions.pop(partition, None)
            for entry in self._ledger.entries(partition):
                self._delivered_of.pop(entry, None)
            self._ledger.release(partition)

    def _enter(self, batch: Sequence[ConsumedRecord], kept: Collection[int], done: Sequence[bool]) -> None:
        written = _offsets(record for record, is_done in zip(batch, done, strict=True) if is_done)
        delivered = written
        if len(kept) < len(batch):
            delivered = _offsets(batch[index] for index in sorted(kept) if done[index])
        for partition, offsets in written.items():
            end, alive = offsets[-1] + 1, delivered.get(partition, array("q"))
            self._positions[partition] = end
            entry = self._ledger.dispatch(partition, end, len(offsets), len(offsets) - len(alive))
            if entry.outstanding:
                self._delivered_of[entry] = alive

    def _settle(self, offsets: Mapping[TopicPartition, int]) -> None:
        for partition, offset in offsets.items():
            for entry in self._ledger.entries(partition):
                if entry.offset > offset:
                    self._settle_part(entry, offset)
                    break
                self._delivered_of.pop(entry, None)
                self._ledger.settle(entry, delivered=entry.outstanding)

    def _settle_part(self, entry: Entry[TopicPartition, int], offset: int) -> None:
        """What is committed is what the task has called safe, also within a batch: a sink whose files
        begin at the committed offset would begin another one anywhere else.
        """
        offsets = self._delivered_of.get(entry, array("q"))
        number = bisect_left(offsets, offset)
        if number:
            self._delivered_of[entry] = offsets[number:]
            self._ledger.settle(self._ledger.split(entry, offset, number), delivered=number)


def _offsets(records: Iterable[ConsumedRecord]) -> dict[TopicPartition, array[int]]:
    """The offsets of each partition's records."""
    found: dict[tuple[str, int], array[int]] = {}
    for record in records:
        at = record[0], record[1]
        if at not in found:
            found[at] = array("q")
        found[at].append(record[2])
    return {TopicPartition(*at): offsets for at, offsets in found.items()}
