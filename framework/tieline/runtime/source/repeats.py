"""Tells equal records apart: the second and later ones of a source that never gives a record twice.

Such a source says so (``SourceTask.repeats_are_events``): ON, OFF, ON under one time stamp are three events,
and two of them have one identity. The first keeps it. The n-th one after it gets an identity made of that
and n, so that redundant sources that see the same stream number alike, and a store keeps one of each.

Remembered are the last ``WINDOW`` records that had an identity, in memory and in a file beside the spool,
written in place before the records go on and without an fsync: a worker that is killed goes on counting.
"""

from __future__ import annotations

import hashlib
import logging
import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from struct import Struct

from tieline.api import ID_HEADER, SourceRecord, header, identity
from tieline.runtime.task.clock import Counters

log = logging.getLogger(__name__)
WINDOW = 65_536
_ENTRY = Struct("<16sIQ")  # hash of the identity, how many came before, sequence number
_CHECKSUM = Struct("<I")
_SIZE = _ENTRY.size + _CHECKSUM.size


class Repeats:
    """Used by the receiver's thread alone. Counter: ``repeats``, the records that were given a number."""

    def __init__(self, path: Path, counters: Counters, window: int = WINDOW) -> None:
        """Open the file, creating it if needed. If the disk refuses, memory alone must do."""
        self._counters = counters
        self._window = window
        self._seen: dict[bytes, int] = {}  # the longest unseen first
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
        """The same records; those that are equal to an earlier one have an identity of their own."""
        first = self._next
        entries: list[bytes] = []
        numbered: dict[int, SourceRecord] = {}
        for index, record in enumerate(records):
            own = header(record, ID_HEADER)
            if own is None:
                continue
            key = hashlib.blake2b(own, digest_size=16).digest()
            before = self._seen.pop(key, -1) + 1
            self._seen[key] = before
            entry = _ENTRY.pack(key, min(before, 0xFFFFFFFF), self._next)
            entries.append(entry + _CHECKSUM.pack(zlib.crc32(entry)))
            self._next += 1
            if before:
                numbered[index] = _numbered(record, own, before)
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
            place = first % self._window
            fitting = entries[: self._window - place]
            try:
                os.pwrite(self._file, b"".join(fitting), place * _SIZE)
            except OSError:
                return  # a full disk: memory knows it
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


def _numbered(record: SourceRecord, own: bytes, before: int) -> SourceRecord:
    (_, made), _ = identity(own, before)
    return record._replace(
        headers=tuple((name, made if name == ID_HEADER else value) for name, value in record.headers)
    )
