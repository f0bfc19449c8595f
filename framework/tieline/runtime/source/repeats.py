"""Distinguishes equal records of a source that never returns a record twice.

Such a source sets ``SourceTask.repeats_are_events``. ON, OFF, ON under one timestamp are three events, and
two of them have one identity. The first keeps it. The n-th one after it gets an identity made of that and n:
redundant sources that see the same stream number alike, and a store keeps one of each. A record that the
source fetched later (``BACKFILL_HEADER``) may be one of them: it keeps its identity, and is not remembered.

The last ``WINDOW`` records with an identity are remembered, in memory and in a file beside the spool. It is
written in place before the records are spooled, without an fsync: a killed worker continues to count.
"""

from __future__ import annotations

import hashlib
import logging
import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from struct import Struct

from tieline.api import BACKFILL_HEADER, ID_HEADER, SourceRecord, header, identity
from tieline.runtime.task.clock import Counters

log = logging.getLogger(__name__)
WINDOW = 65_536
_ENTRY = Struct("<16sIQ")  # hash of the identity, how many came before, sequence number
_CHECKSUM = Struct("<I")
_SIZE = _ENTRY.size + _CHECKSUM.size


class Repeats:
    """Numbers equal records. Used by the receiver's thread. Counter: ``repeats``, the numbered records."""

    def __init__(self, path: Path, counters: Counters, window: int = WINDOW) -> None:
        """Open the file, creating it if needed. If that is impossible, only memory is used."""
        self._counters = counters
        self._window = window
        self._seen: dict[bytes, int] = {}  # the one that was seen longest ago first
        self._next = 0
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            self._load(os.pread(self._file, window * _SIZE, 0))
        except OSError as error:
            self._file = -1
            log.warning(
                "equal messages are counted until this worker ends: %s cannot be used: %s. Check the disk",
                path,
                error.strerror,
            )

    def number(self, records: Sequence[SourceRecord]) -> Sequence[SourceRecord]:
        """Return the records; one that is equal to an earlier one gets an identity of its own."""
        first = self._next
        entries: list[bytes] = []
        numbered: dict[int, SourceRecord] = {}
        for index, record in enumerate(records):
            record_id = header(record, ID_HEADER)
            if record_id is None or header(record, BACKFILL_HEADER) is not None:
                continue
            key = hashlib.blake2b(record_id, digest_size=16).digest()
            before = self._seen.pop(key, -1) + 1
            self._seen[key] = before
            entry = _ENTRY.pack(key, min(before, 0xFFFFFFFF), self._next)
            entries.append(entry + _CHECKSUM.pack(zlib.crc32(entry)))
            self._next += 1
            if before:
                numbered[index] = _numbered(record, record_id, before)
        while len(self._seen) > self._window:
            del self._seen[next(iter(self._seen))]
        self._store(first, entries)
        if not numbered:
            return records
        self._counters.add("repeats", len(numbered))
        return [numbered.get(index, record) for index, record in enumerate(records)]

    def close(self) -> None:
        """Close the file. Call it once, last."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _store(self, first: int, entries: Sequence[bytes]) -> None:
        if self._file < 0:
            return
        while entries:
            slot = first % self._window
            fitting = entries[: self._window - slot]
            try:
                os.pwrite(self._file, b"".join(fitting), slot * _SIZE)
            except OSError:
                return  # a full disk: memory has it
            first += len(fitting)
            entries = entries[len(fitting) :]

    def _load(self, data: bytes) -> None:
        entries = []
        for start in range(0, len(data) - _SIZE + 1, _SIZE):
            entry = data[start : start + _ENTRY.size]
            if _CHECKSUM.unpack_from(data, start + _ENTRY.size) == (zlib.crc32(entry),):
                key, before, number = _ENTRY.unpack(entry)
                entries.append((number, key, before))
        for number, key, before in sorted(entries):
            self._seen[key] = max(before, self._seen.pop(key, 0))
            self._next = number + 1


def _numbered(record: SourceRecord, record_id: bytes, before: int) -> SourceRecord:
    (_, new_id), _ = identity(record_id, before)
    return record._replace(
        headers=tuple((name, new_id if name == ID_HEADER else value) for name, value in record.headers)
    )
