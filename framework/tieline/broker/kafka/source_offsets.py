"""Saved source offsets: a compacted topic in the format of Kafka Connect's ``offset.storage.topic``."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from tieline.api import RetriableError
from tieline.broker.notes import MAX_NOTE_BYTES
from tieline.broker.records import ConsumedRecord, ProducerRecord

Visit = Callable[[ConsumedRecord], None]
Read = Callable[[str, Visit, Mapping[int, int], float], "dict[int, int]"]

NOTE_HEADER = "tieline.note"
"""The header of a saved offset that holds its note. Kafka Connect ignores it."""


def offset_record(
    topic: str, connector: str, partition: str, offset: str | None, note: str | None = None
) -> ProducerRecord:
    """Return the record that saves a source offset, with its note; an offset of ``None`` removes it."""
    return ProducerRecord(
        topic,
        None if offset is None else offset.encode(),
        f"[{json.dumps(connector)},{partition}]".encode(),
        ((NOTE_HEADER, note.encode()),) if note else (),
    )


class OffsetsTopic:
    """Reads the topic, each time only what is new. Safe for many threads.

    A key is ``["connector",{source partition}]``, a value the source offset, or null if it was removed.
    """

    def __init__(self, topic: str, read: Read) -> None:
        self.topic = topic
        self._read = read
        self._lock = threading.Lock()
        self._position: dict[int, int] = {}
        self._offsets: dict[str, dict[str, str]] = {}
        self._notes: dict[str, dict[str, str]] = {}

    def of(self, connector: str, timeout: float) -> dict[str, str]:
        """Return the present saved offsets of a connector. Raises ``RetriableError``."""
        with self._read_to_end(timeout) as offsets:
            return dict(offsets.get(connector, {}))

    def notes(self, connector: str, timeout: float) -> dict[str, str]:
        """Return the notes of the saved offsets of a connector. Raises ``RetriableError``."""
        with self._read_to_end(timeout):
            return dict(self._notes.get(connector, {}))

    def connectors(self, timeout: float) -> list[str]:
        """Return the connectors that have saved offsets. Raises ``RetriableError``."""
        with self._read_to_end(timeout) as offsets:
            return sorted(connector for connector, saved in offsets.items() if saved)

    @contextmanager
    def _read_to_end(self, timeout: float) -> Iterator[dict[str, dict[str, str]]]:
        if not self._lock.acquire(timeout=timeout):
            raise RetriableError(f"{self.topic}: still being read after {timeout} s")
        try:
            self._position = self._read(self.topic, self._visit, self._position, timeout)
            yield self._offsets
        finally:
            self._lock.release()

    def _visit(self, record: ConsumedRecord) -> None:
        # Also if the end is not reached in time: the next call continues from here.
        self._position[record.partition] = record.offset + 1
        try:
            connector, partition = json.loads(record.key or b"")
            if not (isinstance(connector, str) and isinstance(partition, dict)):
                return
            if record.value is not None and not isinstance(json.loads(record.value), dict):
                return
        except (ValueError, TypeError, RecursionError):
            return  # not an offset
        canonical = json.dumps(partition, sort_keys=True, separators=(",", ":"))
        offsets = self._offsets.setdefault(connector, {})
        notes = self._notes.setdefault(connector, {})
        notes.pop(canonical, None)  # an offset without a note was set by an operator or another program
        if record.value is None:
            offsets.pop(canonical, None)
            return
        offsets[canonical] = record.value.decode()
        note = dict(record.headers).get(NOTE_HEADER)
        if note and len(note) <= MAX_NOTE_BYTES:
            notes[canonical] = note.decode(errors="replace")
