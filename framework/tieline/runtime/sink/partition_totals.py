"""The durable totals of a sink's partitions: loaded with the committed offset, stored with the next. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from tieline.api import TopicPartition
from tieline.broker.records import Committed
from tieline.runtime.task.ledger import DeliveryLedger
from tieline.runtime.task.totals import PartitionView, Totals, decode_note, encode_note


class _Partition:
    """``base``: totals when the ledger of the partition began. ``position``: where the next record is."""

    __slots__ = ("base", "committed", "gaps", "given", "position")

    def __init__(self, base: Totals, offset: int | None) -> None:
        self.base = base
        self.committed: tuple[int | None, Totals] = (offset, base)
        self.given: tuple[int, Totals] | None = None
        self.position = offset
        self.gaps: list[tuple[int, int]] = []


class PartitionTotals:
    """Follows the delivery ledger of a sink task. Used by its thread; any thread may read ``views``."""

    def __init__(self, ledger: DeliveryLedger[TopicPartition, int]) -> None:
        self.views: dict[TopicPartition, PartitionView] = {}
        """Each partition's latest view, also of partitions that the task does not own any more."""
        self.gapless = False
        """Whether the broker's offsets have no holes."""
        self._ledger = ledger
        self._partitions: dict[TopicPartition, _Partition] = {}

    def load(self, partition: TopicPartition, stored: Committed | None, now_ms: int) -> None:
        """Begin a partition at the group's committed offset. Without a note of ours, counting begins now."""
        if stored is None:
            self._partitions[partition] = _Partition(Totals(now_ms, -1), None)
        else:
            totals = decode_note(stored.note) or Totals(now_ms, stored.offset)
            self._partitions[partition] = _Partition(totals, stored.offset)
        self._publish(partition)

    def enter(self, partition: TopicPartition, first: int, end: int, now_ms: int) -> int:
        """Note that records from ``first`` to before ``end`` are entered in the ledger.

        Return how many offsets before ``end`` were skipped.
        """
        known = self._partitions.get(partition)
        if known is None or (known.position is not None and first < known.position):
            # It was not loaded, or it is read again from before the totals: of a recreated topic, or after a
            # seek.
            known = self._partitions[partition] = _Partition(Totals(now_ms, first), None)
        if known.base.first < 0:
            known.base = known.base._replace(first=first)
            known.committed = (None, known.base)
        known.position = end
        passed = [gap for gap in known.gaps if gap[1] <= end]
        for gap in passed:
            known.gaps.remove(gap)
        return sum(stop - start for start, stop in passed)

    def skip(self, partition: TopicPartition, first: int, end: int) -> None:
        """Note that the log has nothing from ``first`` to before ``end``; ``enter`` returns it later."""
        known = self._partitions.get(partition)
        if known is not None and known.base.first >= 0 and first < end:
            known.gaps.append((first, end))

    def seek(self, partition: TopicPartition, offset: int, now_ms: int) -> None:
        """Note that the task continues at another offset; what was in flight is dropped already.

        What lies between the committed offset and a later one is skipped. From an earlier one on, records
        are read again that were counted: a new count begins.
        """
        known = self._partitions.get(partition)
        if known is None or known.position is None:
            return
        if offset < known.position:
            self._partitions[partition] = _Partition(Totals(now_ms, offset), None)
            self._publish(partition)
        else:
            self.skip(partition, known.position, offset)

    def give(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Note that these offsets, which the ledger calls safe now, are about to be stored."""
        for partition, offset in offsets.items():
            known = self._partitions.get(partition)
            if known is not None:
                known.given = (offset, known.base.plus(self._ledger.ended(partition)))

    def notes(self, offsets: Mapping[TopicPartition, int]) -> dict[TopicPartition, str]:
        """Return the notes of these offsets, which the ledger calls safe now, and which are stored next."""
        self.give(offsets)
        given = {p: self._partitions[p].given for p in offsets if p in self._partitions}
        return {partition: encode_note(each[1]) for partition, each in given.items() if each is not None}

    def confirm(self, partition: TopicPartition, offset: int) -> None:
        """Note that an offset and its note are stored."""
        known = self._partitions.get(partition)
        if known is not None and known.given is not None and known.given[0] == offset:
            known.committed, known.given = known.given, None
            self._publish(partition)

    def release(self, partition: TopicPartition) -> None:
        """Go back to what is committed: the ledger has dropped the partition, and it will be read again."""
        known = self._partitions.get(partition)
        if known is not None:
            offset, totals = known.committed
            if offset is None:  # the next record defines where counting begins
                totals = totals._replace(first=-1)
            self._partitions[partition] = _Partition(totals, offset)
            self._publish(partition)

    def publish(self, partition: TopicPartition) -> None:
        """Renew the view of a partition whose records were entered."""
        if partition in self._partitions:
            self._publish(partition)

    def _publish(self, partition: TopicPartition) -> None:
        known = self._partitions[partition]
        offset, totals = known.committed
        ended = known.base.received + self._ledger.ended(partition).received
        in_flight = ended - totals.received + self._ledger.unsafe(partition)
        mismatch = 0 if offset is None else totals.mismatch(offset, gapless=self.gapless)
        view = PartitionView(totals, offset, max(0, in_flight), mismatch)
        if partition in self.views:
            self.views[partition] = view
        else:  # a reader may iterate over the old dictionary now
            self.views = {**self.views, partition: view}
