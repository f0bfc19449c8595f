"""The state of the records of one batch, document by document; pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from tieline.api import SinkRecord, TopicPartition
from tieline_connectors.mongo.documents.layouts import Document

DocumentPosition = tuple[TopicPartition, int, str]
"""The partition and offset of a document's record, and the document's key within that record."""


class PendingDocument(NamedTuple):
    """A document to write, the number of its record in the batch, and its key within that record."""

    document: Document
    number: int
    key: str


class BatchState:
    """One batch. ``failures`` and ``skipped`` are by the record's index.

    ``written`` has the positions of documents that earlier attempts wrote before an outage. Nearly every
    batch is written at once; therefore what only an outage needs is computed when there is one.
    """

    def __init__(self, batch: Sequence[SinkRecord], written: set[DocumentPosition]) -> None:
        self.failures: dict[int, Exception] = {}
        self.skipped: dict[int, str] = {}
        self._batch = batch
        self._written = written
        self._pending: list[list[PendingDocument]] = []
        """The documents of each record that was added so far."""
        self._confirmed: list[tuple[Sequence[PendingDocument], Mapping[int, Exception]]] = []

    def add(self, index: int, documents: Mapping[str, Document]) -> list[PendingDocument]:
        """Add the next record; return its documents that still have to be written."""
        pending = [PendingDocument(document, index, key) for key, document in documents.items()]
        if self._written:
            pending = [item for item in pending if self._position(item) not in self._written]
        self._pending.append(pending)
        return pending

    def confirm(self, pending: Sequence[PendingDocument], failures: Mapping[int, Exception]) -> None:
        """Note that documents were written, except ``failures``, which are by their index in ``pending``."""
        self._confirmed.append((pending, failures))
        for index, cause in failures.items():
            self.failures[pending[index].number] = cause

    def reached(self) -> dict[TopicPartition, int]:
        """Return the offset of each partition up to which all records are done, after an outage.

        Documents behind these offsets that are written are added to ``written``.
        """
        waiting = Counter({index: len(pending) for index, pending in enumerate(self._pending)})
        for item in self._done():
            waiting[item.number] -= 1
            self._written.add(self._position(item))
        reached: dict[TopicPartition, int] = {}
        stopped: set[TopicPartition] = set()
        for index, record in enumerate(self._batch):
            partition = record.consumed_from
            if partition in stopped:
                continue
            if index >= len(self._pending) or waiting[index] or index in self.failures:
                stopped.add(partition)
            else:
                reached[partition] = record.offset + 1
        return reached

    def skips(self, reached: Mapping[TopicPartition, int] | None = None) -> Counter[str]:
        """Return the number of skipped records by counter; with ``reached``, only of those before it."""
        return Counter(
            counter
            for index, counter in self.skipped.items()
            if reached is None or self._batch[index].offset < reached.get(self._batch[index].consumed_from, 0)
        )

    def _done(self) -> Iterable[PendingDocument]:
        for pending, failures in self._confirmed:
            yield from (item for index, item in enumerate(pending) if index not in failures)

    def _position(self, item: PendingDocument) -> DocumentPosition:
        record = self._batch[item.number]
        return record.consumed_from, record.offset, item.key
