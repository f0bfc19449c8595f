"""A batch of a source on its way to the broker."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from tieline.api import RecordMetadata, SourceRecord
from tieline.broker.records import ProducerRecord, Unit
from tieline.runtime.errors.dead_letters import SourcePosition
from tieline.runtime.source.positions import Positions
from tieline.runtime.task.ledger import DeliveryLedger, Entry
from tieline.runtime.task.totals import Ended


@dataclass
class SentBatch:
    """A batch on its way; ``unit`` holds those of its records that are not acknowledged.

    ``kept``: the index in the batch of each record that was sent. ``indexes``: where each record of the unit
    is in ``kept`` and ``metadata``. ``letters``: the indexes in the batch whose dead letter was sent instead.
    """

    unit: Unit
    batch: Sequence[SourceRecord]
    positions: Positions
    kept: Sequence[int]
    entries: Sequence[tuple[Entry[str, str], int]]
    letters: set[int]
    indexes: Sequence[int] = ()
    metadata: list[RecordMetadata | None] = field(default_factory=list)
    done: bool = False
    """Whether all of it is acknowledged."""

    def __post_init__(self) -> None:
        self.indexes = range(len(self.kept))
        self.metadata = [None] * len(self.kept)

    def index(self, in_unit: int) -> int:
        """Return the index in the batch of a record of the unit."""
        return self.kept[self.indexes[in_unit]]

    def acknowledge(self, metadata: Sequence[RecordMetadata | None]) -> None:
        """Note the positions of acknowledged records; a dead letter leaves its record without one."""
        for index, where in zip(self.indexes, metadata, strict=True):
            if self.kept[index] not in self.letters:
                self.metadata[index] = where

    def narrow(self, records: Mapping[int, ProducerRecord]) -> None:
        """Keep only these records of the unit, by their index in it, each with what replaces it."""
        indexes = sorted(records)
        self.indexes = [self.indexes[index] for index in indexes]
        self.unit = replace(self.unit, records=[records[index] for index in indexes])

    def settle(self, ledger: DeliveryLedger[str, str]) -> None:
        """Settle all records in the ledger."""
        dead = Counter(self.positions.partitions[index] for index in self.letters)
        for entry, count in self.entries:
            letters = dead[entry.partition]
            ledger.settle(entry, delivered=count - letters, dead_lettered=letters)

    def expected(self) -> dict[str, Ended]:
        """Return what its records will have become once all that was sent is acknowledged."""
        dead = Counter(self.positions.partitions[index] for index in self.letters)
        return {
            entry.partition: Ended(count - letters, letters, entry.ended.filtered)
            for entry, count in self.entries
            for letters in [dead[entry.partition]]
        }

    def all_metadata(self) -> list[RecordMetadata | None]:
        """Return the position of each record of the batch, ``None`` for filtered and dead-lettered ones."""
        every: list[RecordMetadata | None] = [None] * len(self.batch)
        for index, where in zip(self.kept, self.metadata, strict=True):
            every[index] = where
        return every


def positions_of(positions: Positions, indexes: Collection[int]) -> dict[int, SourcePosition]:
    """Return the positions of these records for their dead letters; records of a batch may share one."""
    found: dict[int, SourcePosition] = {}
    seen: Counter[str] = Counter()
    for index in range(max(indexes) + 1):
        text = positions.describe(index)
        key = f"{positions.partitions[index]} {text}"
        if index in indexes:
            found[index] = SourcePosition(key, text, seen[key])
        seen[key] += 1
    return found
