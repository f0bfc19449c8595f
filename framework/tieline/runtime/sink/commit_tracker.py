"""⑪ What a sink was given, what of it is safe, and what is committed."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from tieline.api import TopicPartition
from tieline.broker.records import ConsumedRecord
from tieline.runtime.sink.changelog import TaskChangelogs
from tieline.runtime.sink.letters import SinkLetters
from tieline.runtime.task.ledger import Counts, DeliveryLedger, Entry

Store = Callable[[Mapping[TopicPartition, int]], bool]
"""Stores offsets; returns false while they are on their way."""


class CommitTracker:
    """The delivery ledger of a sink task. Used by the task's thread; ``counts`` may be read from any.

    A partition with a changelog commits through that: it has one writer for everything that concerns it, so
    that its offset is never set back.
    """

    def __init__(self, changelogs: TaskChangelogs, letters: SinkLetters | None = None) -> None:
        self._changelogs = changelogs
        self.letters = letters or SinkLetters(None)
        """The dead letters that are written with the offsets behind them."""
        self._ledger: DeliveryLedger[TopicPartition, int] = DeliveryLedger()
        self._positions: dict[TopicPartition, int] = {}
        self._put_offsets: dict[Entry[TopicPartition, int], array[int]] = {}
        """The offsets of an entry's records without the filtered ones: a task may call a part of it safe."""

    @property
    def counts(self) -> Counts:
        """The ledger's totals."""
        return self._ledger.counts

    def track(
        self,
        batch: Sequence[ConsumedRecord],
        kept: Collection[int],
        done: Sequence[bool],
        dead: Collection[int] = (),
    ) -> None:
        """Enter the records that are ``done``; those that are neither in ``kept`` nor ``dead`` were filtered.

        ``dead``: dead letters of these wait to be written with their offsets.

        This makes one entry a partition, or one a record if a changelog may move the offset to within the
        batch.
        """
        if not self._changelogs.open:
            self._enter(batch, kept, done, dead)
            return
        put = set(kept)
        for index, record in enumerate(batch):
            if done[index]:
                self._enter([record], [0] if index in put else [], [True], [0] if index in dead else [])

    def track_handled(self, record: ConsumedRecord) -> None:
        """Enter a record that the task has handled by itself, durably."""
        partition = TopicPartition(record.topic, record.partition)
        self._positions[partition] = record.offset + 1
        self._ledger.settle(self._ledger.dispatch(partition, record.offset + 1, 1), delivered=1)

    def skip_to(self, partition: TopicPartition, offset: int) -> None:
        """Commit ``offset``, before which the log has nothing, once everything read before it is safe."""
        self._positions[partition] = offset
        self._ledger.dispatch(partition, offset, 0)

    def uncommitted(self, only: Collection[TopicPartition] | None) -> dict[TopicPartition, int]:
        """Return the positions after the records that were handed over and are not committed."""
        return {p: o for p, o in self._positions.items() if only is None or p in only}

    def settle(self, safe: Mapping[TopicPartition, int]) -> None:
        """Settle what the task calls safe, and what its changelogs have reached."""
        self._settle(safe)
        self._settle(self._changelogs.offsets())

    def commit(self, store: Store, only: Collection[TopicPartition] | None) -> bool:
        """Commit what is safe; return whether something was stored.

        Raises what ``store`` or a changelog raises. What is not stored then is stored by the next call, or
        confirmed by ``confirm``.
        """
        stored = False
        plain: dict[TopicPartition, int] = {}
        safe = {p: o for p, o in self._ledger.committable().items() if only is None or p in only}
        for partition, offset in safe.items():
            changelog = self._changelogs.open.get(partition)
            if changelog is None:
                plain[partition] = offset
            else:
                stored = changelog.commit(offset) or stored
                self.confirm({partition: offset})
        if plain and store(plain):
            self.confirm(plain)
            stored = True
        return stored

    def confirm(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Note that these offsets, which ``commit`` gave to its ``store``, are stored."""
        self._ledger.committed(offsets)
        for partition, offset in offsets.items():
            if self._positions.get(partition) == offset:
                del self._positions[partition]

    def drop(self, partitions: Collection[TopicPartition]) -> None:
        """Drop what is in flight of these partitions; it will be read again."""
        self.letters.drop(partitions)
        for partition in partitions:
            self._positions.pop(partition, None)
            for entry in self._ledger.entries(partition):
                self._put_offsets.pop(entry, None)
            self._ledger.release(partition)

    def _enter(
        self,
        batch: Sequence[ConsumedRecord],
        kept: Collection[int],
        done: Sequence[bool],
        dead: Collection[int],
    ) -> None:
        written = _offsets(record for record, is_done in zip(batch, done, strict=True) if is_done)
        put = written
        if len(kept) < len(batch) or dead:
            put = _offsets(batch[index] for index in sorted(kept) if done[index] and index not in dead)
        letters = Counter(TopicPartition(batch[index].topic, batch[index].partition) for index in dead)
        for partition, offsets in written.items():
            end, put_offsets = offsets[-1] + 1, put.get(partition, array("q"))
            self._positions[partition] = end
            dead_lettered = letters[partition]
            filtered = len(offsets) - len(put_offsets) - dead_lettered
            entry = self._ledger.dispatch(partition, end, len(offsets), filtered, dead_lettered)
            if entry.outstanding:
                self._put_offsets[entry] = put_offsets

    def _settle(self, offsets: Mapping[TopicPartition, int]) -> None:
        for partition, offset in offsets.items():
            for entry in self._ledger.entries(partition):
                if entry.offset > offset:
                    self._settle_part(entry, offset)
                    break
                put_offsets = self._put_offsets.pop(entry, array("q"))
                self._settle_entry(entry, put_offsets, entry.outstanding)

    def _settle_entry(self, entry: Entry[TopicPartition, int], offsets: Iterable[int], number: int) -> None:
        """Settle an entry with these records; the task has reported some of them instead of writing them."""
        reported = self.letters.take_reported(entry.partition, offsets)
        self._ledger.settle(entry, delivered=number - reported, dead_lettered=reported)

    def _settle_part(self, entry: Entry[TopicPartition, int], offset: int) -> None:
        """Settle the records of an entry before ``offset``.

        Exactly what the task calls safe is committed, also within a batch. A sink whose files begin at the
        committed offset would otherwise begin another file.
        """
        offsets = self._put_offsets.get(entry, array("q"))
        number = bisect_left(offsets, offset)
        if number:
            self._put_offsets[entry] = offsets[number:]
            self._settle_entry(self._ledger.split(entry, offset, number), offsets[:number], number)


def _offsets(records: Iterable[ConsumedRecord]) -> dict[TopicPartition, array[int]]:
    """Return the offsets of each partition's records."""
    offsets: dict[tuple[str, int], array[int]] = {}
    for record in records:
        partition = record[0], record[1]
        if partition not in offsets:
            offsets[partition] = array("q")
        offsets[partition].append(record[2])
    return {TopicPartition(*partition): numbers for partition, numbers in offsets.items()}
