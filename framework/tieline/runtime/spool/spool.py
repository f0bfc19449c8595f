"""② The spool: what a source that cannot be asked again has received, safe on this disk. At least once
begins at its commit.

One SQLite file a task, the local log's own store: the topic ``spool`` with the records that wait, the
topic ``quarantine`` with what could not even be parsed, the topic ``schemas``. A record leaves when it
is acknowledged behind the pump; what is in the file is what waits.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from tieline.api import (
    ID_HEADER,
    DataError,
    FatalError,
    Headers,
    RetriableError,
    SourceRecord,
    TopicPartition,
    identity,
)
from tieline.broker.local.file import LogSettings
from tieline.broker.local.reader import RawRow
from tieline.broker.local.store import Store
from tieline.broker.port import ProducerRecord
from tieline.runtime.spool.codec import SpoolCodec
from tieline.runtime.spool.mark import SpoolMark
from tieline.runtime.spool.quarantine import TOPIC as _QUARANTINE
from tieline.runtime.spool.quarantine import Quarantine
from tieline.runtime.spool.rows import Taken, take
from tieline.runtime.spool.schemas import TOPIC as _SCHEMAS
from tieline.runtime.spool.schemas import SpoolSchemas
from tieline.runtime.spool.seal import seal, unseal
from tieline.runtime.task.alarms import Alarms
from tieline.runtime.task.clock import Clock, Counters

_SPOOL = "spool"
_RECORDS = TopicPartition(_SPOOL, 0)
_KNOWN_GAP = "gap"  # records that were reported as lost when the spool was opened: from → to
_MAX_RECORD = 64 << 20


class Limits(NamedTuple):
    """How large a spool grows, and what is dropped then."""

    max_bytes: int
    drop_oldest: bool
    quarantine_bytes: int


class Spool:
    """Appended to by one thread, read by another. Never raises to the one that appends: it counts.

    ``as_avro``: nobody behind it looks into values that have a schema, see ``SpoolCodec``.

    Counters: ``spooled``, ``dropped.spool_full``, ``dropped.spool_unavailable``, ``dropped.not_spoolable``,
    ``lost.spool_damaged`` (was safe, and the disk does not give it back), ``quarantined.*``, and those of
    ``Quarantine``.
    """

    def __init__(
        self,
        path: Path,
        limits: Limits,
        counters: Counters,
        clock: Clock | None = None,
        *,
        as_avro: bool = False,
    ) -> None:
        settings = LogSettings(max_message_bytes=_MAX_RECORD, retention_ms=-1, retention_bytes=-1)
        self._store = Store(path, settings=settings)
        self._limits = limits
        self._counters = counters
        clock = clock or Clock()
        self._alarms = Alarms("spool", counters, clock)
        self._quarantine = Quarantine(self._store, limits.quarantine_bytes, counters, self._alarms, clock)
        self._mark = SpoolMark(self.beside("mark"))
        for topic in (_SPOOL, _QUARANTINE, _SCHEMAS):
            self._store.create_topic(topic, 1)
        self.id = self._store.topics()[_SPOOL].id
        schemas = SpoolSchemas(self._store, self._alarms)
        self._codec = SpoolCodec(schemas.number, schemas.schema, as_avro=as_avro)
        self._hands = threading.Lock()  # reading and dropping: each record is either read or dropped
        self._read_to = self._acknowledged_to = self.start
        self._dropped_to = 0
        self._gap = self._find_what_the_file_has_lost()

    # -- the receiver's side --------------------------------------------------------------------------------

    def append(self, batch: Sequence[SourceRecord]) -> None:
        """Returns when the batch is safe, or counted as dropped. Never raises, never waits for the pump."""
        self._quarantine.write_if_due()
        records: list[ProducerRecord] = []
        for record in batch:
            try:
                data = seal(self._codec.encode(record), record.headers)
            except (RetriableError, FatalError) as error:  # its schema could not be stored
                self._counters.add("dropped.spool_unavailable")
                self._alarms.raise_alarm(
                    "unavailable", f"records dropped, the spool cannot be written: {error}"
                )
                continue
            except Exception as error:  # one record that is no record must not stop the reception
                self._counters.add("quarantined.not_encodable")
                self.quarantine(_shown(record.value), f"not_encodable: {error}")
                continue
            records.append(ProducerRecord(_SPOOL, data, None, record.headers, record.timestamp, 0))
        if not records:
            return
        try:
            records = self._fitting(records)
            if records:
                self._mark.committed(self._store.append(records)[-1].offset + 1)
                self._counters.add("spooled", len(records))
        except DataError as error:
            self._counters.add("spooled", len(records) - len(error.failures))
            self._counters.add("dropped.not_spoolable", len(error.failures))
            self._alarms.raise_alarm("not_spoolable", f"records dropped, the spool cannot hold them: {error}")
        except Exception as error:  # a full or broken disk must not stop the reception
            self._counters.add("dropped.spool_unavailable", len(records))
            self._alarms.raise_alarm("unavailable", f"records dropped, the spool cannot be written: {error}")

    def quarantine(self, raw: bytes, reason: str) -> None:
        """Keep what could not be parsed, within bounds; see ``Quarantine``. Never raises."""
        self._alarms.raise_alarm(
            f"quarantined.{reason.partition(':')[0]}",
            f"what cannot be used ({reason[:300]}) goes as it came to the quarantine of {self._store.path}; "
            "the others go on, 'tieline status' counts it",
        )
        self._quarantine.keep(raw, reason)

    def write_quarantine(self) -> None:
        """Write what waits for it, unless that was done a moment ago. For a receiver that has no records."""
        self._quarantine.write_if_due()

    # -- the pump's side ------------------------------------------------------------------------------------

    @property
    def start(self) -> int:
        """The position of the oldest record that waits."""
        return self._store.snapshot()[_RECORDS].start

    def read(self, position: int, max_records: int, timeout: float) -> tuple[list[SourceRecord], int]:
        """The records at and after a position, and the position after them; waits for the first.

        Raises ``RetriableError``, and ``FatalError`` if the file is damaged beyond single records. A record
        that the disk returns changed is quarantined as it is; one that it does not return at all is lost.
        Both are counted and reported, and their neighbours are returned.
        """
        version = self._store.version
        taken = self._take(position, max_records)
        if not taken.rows and not taken.lost and timeout > 0:
            self._store.wait(version, timeout)
            taken = self._take(position, max_records)
        if taken.lost:
            self._lost(
                len(taken.lost),
                f"its file no longer holds the records {taken.lost[0]} to {taken.lost[-1]} whole",
            )
        batch = [record for record in map(self._decoded, taken.rows) if record is not None]
        self._quarantine.write_if_due()
        return batch, taken.position

    def save(self, reached: Mapping[str, str]) -> None:
        """Everything before this position was acknowledged; it is deleted. Raises ``RetriableError``."""
        self._acknowledged_to = int(reached[self.id])
        self._mark.left(self._acknowledged_to)
        self._store.delete_before(_SPOOL, 0, self._acknowledged_to)

    def forget(self) -> None:
        """The pump has ended. What was dropped while it was in its hands, and not acknowledged, is lost."""
        with self._hands:
            lost = self._dropped_to - self._acknowledged_to
            if lost > 0:
                self._counters.add("dropped.spool_full", lost)
            self._dropped_to = 0

    def beside(self, name: str) -> Path:
        """The path of another file that belongs to this spool."""
        return self._store.path.with_name(f"{self._store.path.name}.{name}")

    @property
    def waiting(self) -> tuple[int, int]:
        """Records and bytes in the spool, those in flight behind it included."""
        return self._store.size(_SPOOL)

    def wake(self) -> None:
        """Make a waiting ``read`` return."""
        self._store.wake()

    def close(self) -> None:
        """Let the file go."""
        self._quarantine.write()
        self._mark.close()
        self._store.close()

    def _decoded(self, row: RawRow) -> SourceRecord | None:
        try:
            data, headers = unseal(row.value, row.headers)
            return self._codec.decode(data, self._identified(headers, row.offset, data))
        except Exception as error:
            self._counters.add("quarantined.damaged")
            self.quarantine(
                row.value or b"", f"damaged: record {row.offset} of the spool: {error}; check the disk"
            )
            return None

    def _find_what_the_file_has_lost(self) -> range:
        """Report the committed records that the file does not have; their sequence numbers stay unused.

        This is what a damaged write-ahead log does, or a file that was replaced by an older one.
        """
        at = self._store.snapshot()[_RECORDS]
        before, end = self._mark.before, at.end
        known = self._store.source_offsets(_KNOWN_GAP)
        gap = range(*max(((int(start), int(stop)) for start, stop in known.items()), default=(0, 0)))
        if before is not None and before.spool != self.id:
            if before.committed > before.left:
                self._lost(before.committed - before.left, "the file is not the one that was here before")
        elif before is not None and before.committed > end:
            gap, end = range(end, before.committed), before.committed
            self._store.save_source_offsets(_KNOWN_GAP, {str(gap.start): str(gap.stop)})
            self._store.advance(_SPOOL, 0, end)
            if lost := end - max(gap.start, before.left):
                self._lost(lost, f"its file ends at record {gap.start}, and {end} were committed")
        self._mark.begin(self.id, end, at.start)
        return gap

    def _lost(self, count: int, why: str) -> None:
        self._counters.add("lost.spool_damaged", count)
        self._alarms.raise_alarm(
            "lost",
            f"{count} records that were safe in the spool {self._store.path} are lost: {why}. Check the "
            "disk; lost.spool_damaged counts them",
        )

    def _identified(self, headers: Headers, offset: int, data: bytes) -> Headers:
        """A record without an identity of its own is known by the spool and its sequence number."""
        if any(name == ID_HEADER for name, _ in headers):
            return headers
        return headers + identity(self.id, offset, digest_of=data)

    def _fitting(self, records: list[ProducerRecord]) -> list[ProducerRecord]:
        """The records that may be appended, after making room as the policy says; the others are counted."""
        sizes = [_size(record) for record in records]
        size = sum(sizes)
        waiting, used = self._store.size(_SPOOL)
        if used + size <= self._limits.max_bytes:
            return records
        self._alarms.raise_alarm(
            "full",
            f"the spool is full ({self._limits.max_bytes} bytes, spool.max.bytes); records are dropped",
        )
        if not self._limits.drop_oldest:
            ends = itertools.accumulate(sizes, initial=used)
            next(ends)
            kept = [r for r, end in zip(records, ends, strict=True) if end <= self._limits.max_bytes]
            self._counters.add("dropped.spool_full", len(records) - len(kept))
            return kept
        while waiting and used + size > self._limits.max_bytes:
            with self._hands:
                removed = self._store.drop_oldest(_SPOOL, 0, waiting // 50 + 1)
                lost = min(removed.records, max(0, removed.start - self._read_to))
                self._mark.left(max(removed.start, self._acknowledged_to))
                if lost < removed.records:  # the pump has these already, and may still bring them home
                    self._dropped_to = removed.start - lost
            self._counters.add("dropped.spool_full", lost)
            waiting, used = self._store.size(_SPOOL)
        first = 0
        while used + size > self._limits.max_bytes:  # this batch alone is more than the spool may hold
            size -= sizes[first]
            first += 1
        self._counters.add("dropped.spool_full", first)
        return records[first:]

    def _take(self, position: int, max_records: int) -> Taken:
        if position in self._gap:
            position = self._gap.stop
        elif position < self._gap.start:
            max_records = min(max_records, self._gap.start - position)
        with self._hands:
            taken = take(self._store, _RECORDS, position, max_records)
            self._read_to = max(self._read_to, taken.position)
        return taken


def _shown(value: object) -> bytes:
    try:
        return repr(value).encode("utf-8", "backslashreplace")
    except Exception as error:  # a number of too many digits, lists nested too deep
        return f"{type(value).__name__} that cannot be shown: {error}".encode()


def _size(record: ProducerRecord) -> int:
    """As the store counts."""
    size = len(record.value or b"")
    for name, value in record.headers:
        size += len(name or "") + len(value or b"")
    return size
