"""② The spool: what a source that cannot be asked again has received, safe on this disk. At least once
begins at its commit.

One SQLite file a task, the local log's own store: the topic ``spool`` with the records that wait, the
topic ``quarantine`` with what could not even be parsed, the topic ``schemas``. A record leaves when it
is acknowledged behind the pump; what is in the file is what waits.
"""

from __future__ import annotations

import itertools
import logging
import threading
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from tieline.api import ID_HEADER, DataError, Fatal, Headers, Retriable, Schema, SourceRecord, identity
from tieline.broker.local.file import LogSettings
from tieline.broker.local.store import Store
from tieline.broker.port import ConsumedRecord, ProducerRecord
from tieline.runtime.scope import Clock, Counters
from tieline.runtime.spool_codec import SpoolCodec

log = logging.getLogger(__name__)
_SPOOL, _QUARANTINE, _SCHEMAS = "spool", "quarantine", "schemas"
_ALARM_EVERY = 60.0
_MAX_RECORD = 64 << 20
_CHECKSUM = 4  # bytes before each record


class Limits(NamedTuple):
    """How large a spool grows, and what is dropped then."""

    max_bytes: int
    drop_oldest: bool
    quarantine_bytes: int


class Spool:
    """Appended to by one thread, read by another. Never raises to the one that appends: it counts.

    ``as_avro``: nobody behind it looks into values that have a schema, see ``SpoolCodec``.

    Counters: ``spooled``, ``dropped.spool_full``, ``dropped.spool_unavailable``, ``dropped.not_spoolable``,
    ``quarantined.*``, ``dropped.quarantine_full``.
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
        self._clock = clock or Clock()
        self._alarmed: dict[str, float] = {}
        for topic in (_SPOOL, _QUARANTINE, _SCHEMAS):
            self._store.create_topic(topic, 1)
        self.id = self._store.topics()[_SPOOL].id
        self._schemas: dict[int, Schema] = {}
        self._numbers: dict[Schema, int] = {}
        self._load_schemas()
        self._codec = SpoolCodec(self._number, self._schema, as_avro=as_avro)
        self._hands = threading.Lock()  # reading and dropping: each record is either read or dropped
        self._read_to = self._acknowledged_to = self.start
        self._dropped_to = 0

    # -- the receiver's side --------------------------------------------------------------------------------

    def append(self, batch: Sequence[SourceRecord]) -> None:
        """Returns when the batch is safe, or counted as dropped. Never raises, never waits for the pump."""
        records: list[ProducerRecord] = []
        for record in batch:
            try:
                data = self._codec.encode(record)
                data = _checksum(data, record.headers) + data
            except (Retriable, Fatal) as error:  # its schema could not be stored
                self._counters.add("dropped.spool_unavailable")
                self._alarm("unavailable", f"records dropped, the spool cannot be written: {error}")
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
                self._store.append(records)
                self._counters.add("spooled", len(records))
        except DataError as error:
            self._counters.add("spooled", len(records) - len(error.failures))
            self._counters.add("dropped.not_spoolable", len(error.failures))
            self._alarm("not_spoolable", f"records dropped, the spool cannot hold them: {error}")
        except Exception as error:  # a full or broken disk must not stop the reception
            self._counters.add("dropped.spool_unavailable", len(records))
            self._alarm("unavailable", f"records dropped, the spool cannot be written: {error}")

    def quarantine(self, raw: bytes, reason: str) -> None:
        """Keep what could not be parsed; the oldest go when there is no room. Never raises."""
        self._alarm(
            f"quarantined.{reason.partition(':')[0]}",
            f"what cannot be used ({reason[:300]}) goes as it came to the quarantine of {self._store.path}; "
            "the others go on, 'tieline status' counts it",
        )
        if len(raw) > self._limits.quarantine_bytes:
            self._counters.add("dropped.quarantine_full")
            return
        try:
            self._store.append(
                [ProducerRecord(_QUARANTINE, raw, reason.encode("utf-8", "replace"), (), None, 0)]
            )
            count, size = self._store.size(_QUARANTINE)
            while count and size > self._limits.quarantine_bytes:
                removed = self._store.drop_oldest(_QUARANTINE, 0, count // 10 + 1)
                self._counters.add("dropped.quarantine_full", removed.records)
                count, size = self._store.size(_QUARANTINE)
        except Exception as error:
            self._counters.add("dropped.quarantine_unavailable")
            self._alarm("quarantine", f"not kept, the quarantine cannot be written: {error}")

    # -- the pump's side ------------------------------------------------------------------------------------

    @property
    def start(self) -> int:
        """The position of the oldest record that waits."""
        return min((b.start for at, b in self._store.snapshot().items() if at.topic == _SPOOL), default=0)

    def read(self, position: int, max_records: int, timeout: float) -> tuple[list[SourceRecord], int]:
        """The records at and after a position, and the position after them; waits for the first.

        Raises ``Retriable``, ``Fatal`` (the file is damaged). A record that the disk does not give back as
        it was given is quarantined as it is, counted and told; its neighbours are returned.
        """
        version = self._store.version
        found = self._take(position, max_records)
        if not found and timeout > 0:
            self._store.wait(version, timeout)
            found = self._take(position, max_records)
        if not found:
            return [], position
        batch = [record for record in map(self._decoded, found) if record is not None]
        return batch, found[-1].offset + 1

    def save(self, reached: Mapping[str, str]) -> None:
        """Everything before this position was acknowledged; it is deleted. Raises ``Retriable``."""
        self._acknowledged_to = int(reached[self.id])
        self._store.delete_before(_SPOOL, 0, self._acknowledged_to)

    def forget(self) -> None:
        """The pump has ended. What was dropped while it was in its hands, and not acknowledged, is lost."""
        with self._hands:
            lost = self._dropped_to - self._acknowledged_to
            if lost > 0:
                self._counters.add("dropped.spool_full", lost)
            self._dropped_to = 0

    @property
    def waiting(self) -> tuple[int, int]:
        """Records and bytes in the spool, those in flight behind it included."""
        return self._store.size(_SPOOL)

    def wake(self) -> None:
        """Make a waiting ``read`` return."""
        self._store.wake()

    def close(self) -> None:
        """Let the file go."""
        self._store.close()

    def _decoded(self, record: ConsumedRecord) -> SourceRecord | None:
        sealed = record.value or b""
        data = sealed[_CHECKSUM:]
        try:
            if sealed[:_CHECKSUM] != _checksum(data, record.headers):
                raise ValueError("its checksum does not fit")
            return self._codec.decode(data, self._identified(record.headers, record.offset, data))
        except Exception as error:
            self._counters.add("quarantined.damaged")
            self.quarantine(sealed, f"damaged: record {record.offset} of the spool: {error}; check the disk")
            return None

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
        self._alarm(
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

    def _take(self, position: int, max_records: int) -> list[ConsumedRecord]:
        with self._hands:
            found = self._store.read_from(_SPOOL, 0, position, max_records)
            if found:
                self._read_to = found[-1].offset + 1
        return found

    def _alarm(self, kind: str, message: str) -> None:
        now = self._clock.now()
        if now - self._alarmed.get(kind, float("-inf")) >= _ALARM_EVERY:
            self._alarmed[kind] = now
            log.error(message, extra={"alarm": f"spool.{kind}", "counters": self._counters.all()})

    # -- schemas --------------------------------------------------------------------------------------------

    def _load_schemas(self) -> None:
        position = 0
        while more := self._store.read_from(_SCHEMAS, 0, position):
            for record in more:
                self._remember(record.offset, Schema.parse((record.value or b"").decode()))
            position = more[-1].offset + 1

    def _remember(self, number: int, schema: Schema) -> None:
        self._numbers.setdefault(schema, number)
        self._schemas[number] = schema

    def _number(self, schema: Schema) -> int:
        number = self._numbers.get(schema)
        if number is None:
            stored = self._store.append([ProducerRecord(_SCHEMAS, schema.text.encode(), None, (), None, 0)])
            number = stored[0].offset
            self._remember(number, schema)
        return number

    def _schema(self, number: int) -> Schema:
        return self._schemas[number]


def _shown(value: object) -> bytes:
    try:
        return repr(value).encode("utf-8", "backslashreplace")
    except Exception as error:  # a number of too many digits, lists nested too deep
        return f"{type(value).__name__} that cannot be shown: {error}".encode()


def _checksum(data: bytes, headers: Headers) -> bytes:
    """SQLite does not notice a byte that its disk changed inside a record."""
    checksum = zlib.crc32(data)
    for name, value in headers:
        checksum = zlib.crc32(value or b"", zlib.crc32(name.encode("utf-8", "surrogatepass"), checksum))
    return checksum.to_bytes(_CHECKSUM, "big")


def _size(record: ProducerRecord) -> int:
    """As the store counts."""
    size = len(record.value or b"")
    for name, value in record.headers:
        size += len(name or "") + len(value or b"")
    return size
