"""What became of the records of one batch, document by document; pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from tieline.api import SinkRecord, TopicPartition
from tieline_connectors.mongo.layouts import Document

Place = tuple[TopicPartition, int, str]
"""Of a document: where its record was consumed, and what tells it from others of that record."""


class Piece(NamedTuple):
    """A document to write, the number of its record in the batch, and its place."""

    document: Document
    number: int
    place: Place


class Offered:
    """One batch. ``failures`` and ``skipped`` by the record's index.

    ``written``: the documents of records that are offered again, from attempts that ended in an outage.
    """

    def __init__(self, batch: Sequence[SinkRecord], written: set[Place]) -> None:
        self.failures: dict[int, Exception] = {}
        self.skipped: dict[int, str] = {}
        self._batch = batch
        self._written = written
        self._made = 0
        """Records up to this index have been turned into documents."""
        self._waiting: Counter[int] = Counter()
        """Documents that are not written yet, by their record's index."""

    def pieces(self, index: int, made: dict[str, Document]) -> list[Piece]:
        """The documents of the next record that still have to be written."""
        self._made = index
        record = self._batch[index]
        consumed_from, offset = record.consumed_from, record.offset
        pieces = [Piece(document, index, (consumed_from, offset, key)) for key, document in made.items()]
        if self._written:
            pieces = [piece for piece in pieces if piece.place not in self._written]
        self._waiting[index] = len(pieces)
        return pieces

    def confirm(self, pieces: Sequence[Piece], failures: dict[int, Exception]) -> None:
        """These were written, but for the ``failures``, by their index among them."""
        for number, piece in enumerate(pieces):
            if number in failures:
                self.failures[piece.number] = failures[number]
            else:
                self._waiting[piece.number] -= 1
                self._written.add(piece.place)

    def reached(self) -> dict[TopicPartition, int]:
        """Up to which offset the records of each partition are done, where others of the batch are not."""
        reached: dict[TopicPartition, int] = {}
        stopped: set[TopicPartition] = set()
        for index, record in enumerate(self._batch):
            at = record.consumed_from
            if at in stopped:
                continue
            if index > self._made or self._waiting[index] or index in self.failures:
                stopped.add(at)
            else:
                reached[at] = record.offset + 1
        return reached

    def skips(self, reached: dict[TopicPartition, int] | None = None) -> Counter[str]:
        """How many were skipped, by their kind; of those before ``reached`` where the others come again."""
        return Counter(
            kind
            for index, kind in self.skipped.items()
            if reached is None or self._batch[index].offset < reached.get(self._batch[index].consumed_from, 0)
        )
