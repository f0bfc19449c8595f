"""What became of the records of one batch, document by document; pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from tieline.api import SinkRecord, TopicPartition
from tieline_connectors.mongo.documents.layouts import Document

Place = tuple[TopicPartition, int, str]
"""Of a document: where its record was consumed, and what tells it from others of that record."""


class Piece(NamedTuple):
    """A document to write, the number of its record in the batch, and what tells it from others of that."""

    document: Document
    number: int
    key: str


class Offered:
    """One batch. ``failures`` and ``skipped`` by the record's number.

    ``written``: the documents of records that are offered again, from attempts that ended in an outage.
    Nearly every batch is written at once: what only an outage needs is found when there is one.
    """

    def __init__(self, batch: Sequence[SinkRecord], written: set[Place]) -> None:
        self.failures: dict[int, Exception] = {}
        self.skipped: dict[int, str] = {}
        self._batch = batch
        self._written = written
        self._pieces: list[list[Piece]] = []
        """Of each record, as far as the batch was looked at."""
        self._confirmed: list[tuple[Sequence[Piece], Mapping[int, Exception]]] = []

    def pieces(self, number: int, made: Mapping[str, Document]) -> list[Piece]:
        """The documents of the next record that still have to be written."""
        pieces = [Piece(document, number, key) for key, document in made.items()]
        if self._written:
            pieces = [piece for piece in pieces if self._place(piece) not in self._written]
        self._pieces.append(pieces)
        return pieces

    def confirm(self, pieces: Sequence[Piece], failures: Mapping[int, Exception]) -> None:
        """These were written, but for the ``failures``, by their index among them."""
        self._confirmed.append((pieces, failures))
        for index, cause in failures.items():
            self.failures[pieces[index].number] = cause

    def reached(self) -> dict[TopicPartition, int]:
        """Up to which offset the records of each partition are done, where others of the batch are not.

        What is written behind it is remembered in ``written``.
        """
        waiting = Counter({number: len(pieces) for number, pieces in enumerate(self._pieces)})
        for piece in self._done():
            waiting[piece.number] -= 1
            self._written.add(self._place(piece))
        reached: dict[TopicPartition, int] = {}
        stopped: set[TopicPartition] = set()
        for number, record in enumerate(self._batch):
            at = record.consumed_from
            if at in stopped:
                continue
            if number >= len(self._pieces) or waiting[number] or number in self.failures:
                stopped.add(at)
            else:
                reached[at] = record.offset + 1
        return reached

    def skips(self, reached: Mapping[TopicPartition, int] | None = None) -> Counter[str]:
        """How many were skipped, by their kind; of those before ``reached`` where the others come again."""
        return Counter(
            kind
            for number, kind in self.skipped.items()
            if reached is None
            or self._batch[number].offset < reached.get(self._batch[number].consumed_from, 0)
        )

    def _done(self) -> Iterable[Piece]:
        for pieces, failures in self._confirmed:
            yield from (piece for index, piece in enumerate(pieces) if index not in failures)

    def _place(self, piece: Piece) -> Place:
        record = self._batch[piece.number]
        return record.consumed_from, record.offset, piece.key
