"""⑪ What a sink was given, what of it is safe, and what is committed."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from tieline.api import TopicPartition
from tieline.broker.records import Committed, ConsumedRecord
from tieline.runtime.sink.changelog import TaskChangelogs
from tieline.runtime.sink.letters import SinkLetters
from tieline.runtime.sink.partition_totals import PartitionTotals
from tieline.runtime.sink.uncommitted_times import UncommittedTimes
from tieline.runtime.task.clock import Clock
from tieline.runtime.task.ledger import Counts, DeliveryLedger, Entry
from tieline.runtime.task.totals import Ended

Store = Callable[[Mapping[TopicPartition, int]], bool]
"""Stores offsets; returns false while they are on their way."""


class CommitTracker:
    """The delivery ledger of a sink task. Used by the task's thread; ``counts`` may be read from any.

    A partition with a changelog commits through that: it has one writer for everything that concerns it, so
    that its offset is never set back.
    """

    def __init__(
        self, changelogs: TaskChangelogs, letters: SinkLetters | None = None, clock: Clock | None = None
    ) -> None:
        self._changelogs = changelogs
        self._clock = clock or Clock()
        self.letters = letters or SinkLetters(None)
        """The dead letters that are written with the offsets behind them."""
        self._ledger: DeliveryLedger[TopicPartition, int] = DeliveryLedger()
        self._positions: dict[TopicPartition, int] = {}
        self._put_offsets: dict[Entry[TopicPartition, int], array[int]] = {}
        """The offsets of an entry's records without the filtered ones: a task may call a part of it safe."""
        self._ended: dict[Entry[TopicPartition, int], tuple[array[int], array[int]]] = {}
        """The offsets of an entry's filtered and dead-lettered records, if it has others, too."""
        self.totals = PartitionTotals(self._ledger)
        """What the records of each partition became, stored with its offset."""
        self._waiting = UncommittedTimes()

    @property
    def counts(self) -> Counts:
        """The ledger's totals."""
        return self._ledger.counts

    @property
    def oldest_ms(self) -> int | None:
        """The timestamp of the oldest record that is not committed. Any thread may read it."""
        return self._waiting.oldest

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
        partition, end = TopicPartition(record.topic, record.partition), record.offset + 1
        self._positions[partition] = end
        skipped = self.totals.enter(partition, record.offset, end, self._clock.wall_ms())
        self._ledger.settle(self._ledger.dispatch(partition, end, 1, skipped=skipped), delivered=1)
        self._waiting.add(partition, end, record.timestamp)
        self.totals.publish(partition)

    def skip(self, partition: TopicPartition, first: int, end: int, *, commit: bool) -> None:
        """Note that the log has nothing from ``first`` to before ``end``.

        ``commit``: commit ``end`` once everything read before it is safe, even if no record follows.
        """
        self.totals.skip(partition, first, end)
        if commit:
            self._positions[partition] = end
            skipped = self.totals.enter(partition, end, end, self._clock.wall_ms())
            self._ledger.dispatch(partition, end, 0, skipped=skipped)

    def seek(self, partition: TopicPartition, offset: int) -> None:
        """Drop what is in flight of a partition: the task continues at another offset."""
        self.drop([partition])
        self.totals.seek(partition, offset, self._clock.wall_ms())

    def load(
        self, partitions: Collection[TopicPartition], stored: Mapping[TopicPartition, Committed]
    ) -> None:
        """Begin partitions at their committed offsets, with the totals that were stored with these."""
        now_ms = self._clock.wall_ms()
        for partition in partitions:
            self.totals.load(partition, stored.get(partition), now_ms)

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
                self.totals.give({partition: offset})
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
            self._waiting.commit(partition, offset)
            self.totals.confirm(partition, offset)

    def drop(self, partitions: Collection[TopicPartition]) -> None:
        """Drop what is in flight of these partitions; it will be read again."""
        self.letters.drop(partitions)
        for partition in partitions:
            self._positions.pop(partition, None)
            for entry in self._ledger.entries(partition):
                self._put_offsets.pop(entry, None)
                self._ended.pop(entry, None)
            self._ledger.release(partition)
            self._waiting.drop(partition)
            self.totals.release(partition)

    def _enter(
        self,
        batch: Sequence[ConsumedRecord],
        kept: Collection[int],
        done: Sequence[bool],
        dead: Collection[int],
    ) -> None:
        times: dict[tuple[str, int], int] = {}
        is_done = (record for record, is_done in zip(batch, done, strict=True) if is_done)
        written = _offsets(is_done, times)
        put = written
        if len(kept) < len(batch) or dead:
            put = _offsets(batch[index] for index in sorted(kept) if done[index] and index not in dead)
        letters = _offsets(batch[index] for index in sorted(dead)) if dead else {}
        now_ms = self._clock.wall_ms()
        for partition, offsets in written.items():
            end, put_offsets = offsets[-1] + 1, put.get(partition, array("q"))
            self._positions[partition] = end
            skipped = self.totals.enter(partition, offsets[0], end, now_ms)
            dead_lettered = len(letters.get(partition, ()))
            filtered = len(offsets) - len(put_offsets) - dead_lettered
            entry = self._ledger.dispatch(
                partition, end, len(offsets), filtered, dead_lettered, skipped=skipped
            )
            if entry.outstanding:
                self._put_offsets[entry] = put_offsets
                if len(put_offsets) < len(offsets):
                    dead_offsets = letters.get(partition, array("q"))
                    others = set(offsets).difference(put_offsets, dead_offsets)
                    self._ended[entry] = array("q", sorted(others)), dead_offsets
            self._waiting.add(partition, end, times[partition])
            self.totals.publish(partition)

    def _settle(self, offsets: Mapping[TopicPartition, int]) -> None:
        for partition, offset in offsets.items():
            for entry in self._ledger.entries(partition):
                if entry.offset > offset:
                    self._settle_part(entry, offset)
                    break
                put_offsets = self._put_offsets.pop(entry, array("q"))
                self._ended.pop(entry, None)
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
            filtered, dead = self._ended.get(entry, (array("q"), array("q")))
            before = bisect_left(filtered, offset), bisect_left(dead, offset)
            self._put_offsets[entry] = offsets[number:]
            self._ended[entry] = filtered[before[0] :], dead[before[1] :]
            ended = Ended(0, before[1], before[0], entry.ended.skipped)
            first = self._ledger.split(entry, offset, number, ended)
            self._settle_entry(first, offsets[:number], number)


def _offsets(
    records: Iterable[ConsumedRecord], times: dict[tuple[str, int], int] | None = None
) -> dict[TopicPartition, array[int]]:
    """Return the offsets of each partition's records. ``times`` takes the timestamp of each first one."""
    offsets: dict[tuple[str, int], array[int]] = {}
    for record in records:
        partition = record[0], record[1]
        if partition not in offsets:
            offsets[partition] = array("q")
            if times is not None:
                times[partition] = record[6]
        offsets[partition].append(record[2])
    return {TopicPartition(*partition): numbers for partition, numbers in offsets.items()}
