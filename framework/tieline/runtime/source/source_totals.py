"""The durable totals of source partitions: loaded with the saved offsets, stored with the next ones. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from tieline.runtime.task.ledger import DeliveryLedger
from tieline.runtime.task.totals import Ended, PartitionView, Totals, decode_note, encode_note


class SourceTotals:
    """Follows the delivery ledger of a source task. Used by its thread; any thread may read ``views``.

    An offset of a source is an opaque text, so the totals are not compared with it.
    """

    def __init__(self, ledger: DeliveryLedger[str, str]) -> None:
        self.views: dict[str, PartitionView] = {}
        """The latest view of each source partition that was counted, also of those of other tasks."""
        self._ledger = ledger
        self._base: dict[str, Totals] = {}
        self._saved: dict[str, Totals] = {}
        self._expected: dict[str, Ended] = {}
        self._completed: dict[str, Ended] = {}

    def load(self, notes: Mapping[str, str]) -> None:
        """Begin at the saved offsets. Without a note of ours, counting begins with the next record."""
        decoded = {partition: decode_note(note) for partition, note in notes.items()}
        self._base = {partition: totals for partition, totals in decoded.items() if totals is not None}
        self._saved = dict(self._base)
        self._publish(self._base)

    def enter(self, partitions: Collection[str], now_ms: int) -> None:
        """Note that records of these source partitions are entered in the ledger."""
        for partition in partitions:
            if partition not in self._base:
                self._base[partition] = self._saved[partition] = Totals(now_ms, 0)
        self._publish(partitions)

    def expect(self, ended: Mapping[str, Ended]) -> dict[str, str]:
        """Return the notes of the next batch if it and all before it end as expected.

        ``ended``: what its records will have become once they are acknowledged.
        """
        notes = {}
        for partition, more in ended.items():
            expected = self._expected[partition] = self._expected.get(partition, Ended()).plus(more)
            notes[partition] = encode_note(self._base[partition].plus(expected))
        return notes

    def complete(self, ended: Mapping[str, Ended]) -> None:
        """Note that the oldest batch is acknowledged, and what its records became."""
        for partition, more in ended.items():
            self._completed[partition] = self._completed.get(partition, Ended()).plus(more)

    def expect_again(self) -> None:
        """Note that every batch that is not complete is passed to ``expect`` once more, the oldest first.

        The ledger does not know what ended before these: of a batch, a partition whose records are all
        filtered is settled there at once.
        """
        self._expected = dict(self._completed)

    def notes(self, offsets: Iterable[str]) -> dict[str, str]:
        """Return the notes of these offsets, which the ledger calls safe now, and which are stored next."""
        return {partition: encode_note(self._ended(partition)) for partition in offsets}

    def confirm(self, offsets: Collection[str]) -> None:
        """Note that these offsets, which the ledger called safe, are stored with their notes."""
        self._saved.update((partition, self._ended(partition)) for partition in offsets)
        self._publish(offsets)

    def _ended(self, partition: str) -> Totals:
        return self._base[partition].plus(self._ledger.ended(partition))

    def _publish(self, partitions: Iterable[str]) -> None:
        views = {}
        for partition in partitions:
            saved = self._saved[partition]
            read = self._ended(partition).received + self._ledger.unsafe(partition)
            views[partition] = PartitionView(saved, None, read - saved.received, saved.inner_mismatch)
        if views.keys() <= self.views.keys():
            self.views.update(views)
        else:  # a reader may iterate over the old dictionary now
            self.views = {**self.views, **views}
