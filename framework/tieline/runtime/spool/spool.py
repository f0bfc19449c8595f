"""② The spool: what a source that cannot be read again has received, safe on this disk.

At-least-once delivery begins at its commit. One SQLite file a task, the local log's own store: the topic
``spool`` with the records that wait, the topic ``quarantine`` with input that could not even be parsed, the
topic ``schemas``. A record is deleted when the broker behind the pump has acknowledged it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from tieline.api import ID_HEADER, DataError, FatalError, Headers, RetriableError, SourceRecord, identity
from tieline.broker.local.file import LogSettings
from tieline.broker.local.reader import RawRow
from tieline.broker.local.store import Store
from tieline.broker.records import ProducerRecord
from tieline.runtime.spool.codec import SpoolCodec
from tieline.runtime.spool.mark import SpoolMark
from tieline.runtime.spool.quarantine import TOPIC as _QUARANTINE
from tieline.runtime.spool.quarantine import Quarantine
from tieline.runtime.spool.reception_times import ReceptionTimes
from tieline.runtime.spool.room import PARTITION as _PARTITION
from tieline.runtime.spool.room import TOPIC as _SPOOL
from tieline.runtime.spool.room import Limits, SpoolRoom
from tieline.runtime.spool.row_reader import Rows
from tieline.runtime.spool.schemas import TOPIC as _SCHEMAS
from tieline.runtime.spool.schemas import SpoolSchemas
from tieline.runtime.spool.seal import seal, unseal
from tieline.runtime.spool.totals import SpoolTotals
from tieline.runtime.task.alarms import Alarms
from tieline.runtime.task.clock import Clock, Counters
from tieline.runtime.task.totals import Ended, PartitionView

__all__ = ["Limits", "Spool", "SpoolBatch"]

KNOWN_GAP = "gap"
"""The source offsets of sequence numbers without a record, from → to.

The records were reported as lost, or the spool was restored from a backup."""
_MAX_RECORD = 64 << 20


class DamagedRow(NamedTuple):
    """A row that the disk returns changed: its position, what it holds, and why it cannot be decoded."""

    offset: int
    value: bytes
    error: Exception


class SpoolBatch(NamedTuple):
    """Records that were read, the position after them, and the position of each.

    ``damaged``: rows among them that cannot be decoded, if the spool leaves these to its reader.
    """

    records: list[SourceRecord]
    position: int
    offsets: Sequence[int]
    damaged: Sequence[DamagedRow] = ()


class SpoolView(NamedTuple):
    """What waits in a spool, how many seconds ago the oldest of it was received, and the durable totals.

    Of records that an earlier process received, the age is that of their timestamp.
    """

    records: int
    bytes: int
    age: float
    totals: PartitionView


class Spool:
    """Keeps received records on disk. One thread appends, another reads; ``append`` never raises: it counts.

    ``as_avro``: nothing behind the spool looks into values that have a schema; see ``SpoolCodec``.
    ``dead_letters``: the reader gets rows that cannot be decoded; else they go to the quarantine.

    Counters: ``spooled``, ``dropped.spool_full``, ``dropped.spool_unavailable``, ``dropped.not_spoolable``,
    ``lost.spool_damaged`` (was safe, and the disk does not return it), ``quarantined.*``, and those of
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
        dead_letters: bool = False,
    ) -> None:
        self._dead_letters = dead_letters
        settings = LogSettings(max_message_bytes=_MAX_RECORD, retention_ms=-1, retention_bytes=-1)
        self._store = Store(path, settings=settings)
        self._counters = counters
        self._max_bytes = limits.max_bytes
        clock = clock or Clock()
        self._alarms = Alarms("spool", counters, clock)
        self._quarantine = Quarantine(self._store, limits.quarantine_bytes, counters, self._alarms, clock)
        self._mark = SpoolMark(self.sibling("mark"))
        for topic in (_SPOOL, _QUARANTINE, _SCHEMAS):
            self._store.create_topic(topic, 1)
        self.id = self._store.topics()[_SPOOL].id
        schemas = SpoolSchemas(self._store, self._alarms)
        self._codec = SpoolCodec(schemas.number, schemas.schema, as_avro=as_avro)
        self._room = SpoolRoom(self._store, limits, self._mark, counters, self._alarms)
        self._clock = clock
        self._totals = SpoolTotals(self._store, clock.wall_ms(), self._alarms)
        self._received = ReceptionTimes()
        self._gaps = self._find_lost_records()

    # -- the receiver's side --------------------------------------------------------------------------------

    def append(self, batch: Sequence[SourceRecord]) -> None:
        """Append a batch; return when it is safe, or counted as dropped. Never waits for the pump."""
        self._quarantine.write_if_due()
        records: list[ProducerRecord] = []
        for record in batch:
            try:
                data = seal(self._codec.encode(record), record.headers)
            except (RetriableError, FatalError) as error:  # its schema could not be stored
                self._drop(1, error)
                continue
            except Exception as error:  # noqa: BLE001 - an invalid record must not stop the reception
                self._counters.add("quarantined.not_encodable")
                self.quarantine(_display(record.value), f"not_encodable: {error}")
                continue
            records.append(ProducerRecord(_SPOOL, data, None, record.headers, record.timestamp, 0))
        if not records:
            return
        try:
            records = self._room.fit(records)
            if records:
                last = self._store.append(records)[-1].offset
                self._mark.committed(last + 1)
                self._received.note(last - len(records) + 1, self._clock.wall_ms())
                self._counters.add("spooled", len(records))
        except DataError as error:
            self._counters.add("spooled", len(records) - len(error.failures))
            self._counters.add("dropped.not_spoolable", len(error.failures))
            self._alarms.raise_alarm("not_spoolable", f"records dropped, the spool cannot hold them: {error}")
        except Exception as error:  # noqa: BLE001 - a full or broken disk must not stop the reception
            self._drop(len(records), error)

    def quarantine(self, raw: bytes, reason: str) -> None:
        """Keep input that cannot be parsed, within bounds; see ``Quarantine``. Never raises."""
        self._alarms.raise_alarm(
            f"quarantined.{reason.partition(':')[0]}",
            f"what cannot be used ({reason[:300]}) goes unchanged to the quarantine of {self._store.path}; "
            "other input is not affected, 'tieline status' counts it",
        )
        self._quarantine.keep(raw, reason)

    def write_quarantine(self) -> None:
        """Write what waits for the quarantine, if that is due. For a receiver that has no records."""
        self._quarantine.write_if_due()

    # -- the pump's side ------------------------------------------------------------------------------------

    @property
    def start(self) -> int:
        """The position of the oldest record that waits."""
        return self._room.start

    def begin(self) -> int:
        """Begin the totals of a new pump. Return the position of the oldest record that waits.

        Raises ``RetriableError``.
        """
        return self._totals.begin()

    def read(self, position: int, max_records: int, timeout: float) -> SpoolBatch:
        """Read the records at and after a position; wait ``timeout`` seconds for the first.

        Raises ``RetriableError``, and ``FatalError`` if the file is damaged beyond single records. A record
        that the disk returns changed is quarantined, or returned as damaged; one that it does not return is
        lost. Both are counted and reported, and their neighbours are returned.
        """
        version = self._store.version
        result = self._read_rows(position, max_records)
        if not result.rows and not result.lost and timeout > 0:
            self._store.wait(version, timeout)
            result = self._read_rows(position, max_records)
        if result.lost:
            self._report_lost(
                len(result.lost),
                f"its file no longer holds the records {result.lost[0]} to {result.lost[-1]} whole",
            )
        damaged: list[DamagedRow] = []
        decoded = [self._decode(row, damaged) for row in result.rows]
        batch = [record for record in decoded if record is not None]
        offsets: Sequence[int] = range(result.position - len(batch), result.position)
        if len(batch) < len(result.rows) or result.lost:
            offsets = [row.offset for row, record in zip(result.rows, decoded, strict=True) if record]
        self._quarantine.write_if_due()
        return SpoolBatch(batch, result.position, offsets, damaged)

    def save(self, reached: Mapping[str, str], ended: Mapping[str, Ended] | None = None) -> None:
        """Delete everything before a position, since it was acknowledged. Raises ``RetriableError``.

        ``ended``: what became of it since ``begin``, which is stored in the same transaction. What it lacks
        counts as skipped.
        """
        position = int(reached[self.id])
        self._room.delete_before(position, self._totals.change(position, (ended or {}).get(self.id, Ended())))
        self._received.drop_before(position)

    def release(self) -> None:
        """Note that the pump has ended: what was dropped while it had it, and not acknowledged, is lost."""
        self._room.release()

    def sibling(self, name: str) -> Path:
        """Return the path of another file that belongs to this spool."""
        return self._store.path.with_name(f"{self._store.path.name}.{name}")

    @property
    def view(self) -> SpoolView:
        """Return what waits and what became of the rest, at one moment. Raises ``RetriableError``."""
        waiting, totals = self._totals.view()
        received = self._received.of(waiting.start) or waiting.oldest_ms
        age = 0.0
        if waiting.records and received is not None:
            age = max(0.0, (self._clock.wall_ms() - received) / 1000)
        return SpoolView(waiting.records, waiting.bytes, age, totals)

    @property
    def waiting(self) -> tuple[int, int]:
        """Records and bytes in the spool, including those in flight. Raises ``RetriableError``."""
        return self._store.size(_SPOOL)

    def used_share(self) -> float:
        """Return which share of the largest size is in use; 1.0 if the disk cannot tell. Any thread."""
        try:
            return self.waiting[1] / self._max_bytes
        except RetriableError:
            return 1.0

    def wake(self) -> None:
        """Make a waiting ``read`` return."""
        self._store.wake()

    def close(self) -> None:
        """Write what waits for the quarantine, and close the files."""
        self._quarantine.write()
        self._mark.close()
        self._store.close()

    def _decode(self, row: RawRow, damaged: list[DamagedRow]) -> SourceRecord | None:
        try:
            data, headers = unseal(row.value, row.headers)
            return self._codec.decode(data, self._with_identity(headers, row.offset, data))
        except Exception as error:  # noqa: BLE001 - a damaged record costs itself only
            if self._dead_letters:
                damaged.append(DamagedRow(row.offset, row.value or b"", error))
                return None
            self._counters.add("quarantined.damaged")
            self.quarantine(
                row.value or b"", f"damaged: record {row.offset} of the spool: {error}; check the disk"
            )
            return None

    def _drop(self, count: int, error: Exception) -> None:
        self._counters.add("dropped.spool_unavailable", count)
        self._alarms.raise_alarm("unavailable", f"records dropped, the spool cannot be written: {error}")

    def _find_lost_records(self) -> list[range]:
        """Report committed records that the file does not have; return the sequence numbers of no record.

        A damaged write-ahead log does this, or a file that was replaced by an older one.
        """
        bounds = self._store.snapshot()[_PARTITION]
        before, end = self._mark.before, bounds.end
        known = self._store.source_offsets(KNOWN_GAP)
        gaps = [range(int(start), int(stop)) for start, stop in known.items()]
        if before is not None and before.spool != self.id:
            if before.committed > before.left:
                self._report_lost(before.committed - before.left, "the file was replaced by another one")
        elif before is not None and before.committed > end:
            gap, end = range(end, before.committed), before.committed
            gaps.append(gap)
            self._store.save_source_offsets(KNOWN_GAP, {str(gap.start): str(gap.stop)})
            self._store.advance(_SPOOL, 0, end)
            if lost := end - max(gap.start, before.left):
                self._report_lost(lost, f"its file ends at record {gap.start}, and {end} were committed")
        self._mark.begin(self.id, end, bounds.start)
        return sorted(gaps, key=lambda gap: gap.start)

    def _report_lost(self, count: int, why: str) -> None:
        self._counters.add("lost.spool_damaged", count)
        self._alarms.raise_alarm(
            "lost",
            f"{count} records that were safe in the spool {self._store.path} are lost: {why}. Check the "
            "disk; lost.spool_damaged counts them",
        )

    def _with_identity(self, headers: Headers, offset: int, data: bytes) -> Headers:
        """Identify a record without an identity by the spool and its sequence number."""
        if any(name == ID_HEADER for name, _ in headers):
            return headers
        return headers + identity(self.id, offset, digest_of=data)

    def _read_rows(self, position: int, max_records: int) -> Rows:
        for gap in self._gaps:
            if position in gap:
                position = gap.stop
            elif position < gap.start:
                max_records = min(max_records, gap.start - position)
                break
        return self._room.read(position, max_records)


def _display(value: object) -> bytes:
    try:
        return repr(value).encode("utf-8", "backslashreplace")
    except Exception as error:  # noqa: BLE001 - a number of too many digits, lists nested too deep
        return f"{type(value).__name__} that cannot be shown: {error}".encode()
