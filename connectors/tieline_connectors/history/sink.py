"""The sink ``history``: keeps readings and their rollups in a SQLite file, one row per point and time."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from tieline.api import (
    DataError,
    FatalError,
    RetriableError,
    SinkConnector,
    SinkContext,
    SinkRecord,
    SinkTask,
    TopicPartition,
)
from tieline.api.private_files import DiskReserve
from tieline_connectors.history.config import HistorySinkConfig
from tieline_connectors.history.database import DiskFullError, disk_full_error
from tieline_connectors.history.model.candidates import candidates
from tieline_connectors.history.model.identity import identity_of
from tieline_connectors.history.writing.lock import FileLock
from tieline_connectors.history.writing.retention import Retention, RetentionLimits
from tieline_connectors.history.writing.writer import HistoryWriter, IdentifiedRecord, WriteResult
from tieline_connectors.points.values import KINDS

log = logging.getLogger(__name__)

_RESERVE_BYTES = 8 * 1024 * 1024  # a deletion needs room in the write-ahead log, too
_RETENTION_SECONDS = 0.1
"""How long retention may delay the batches behind it at a time."""
_RETENTION_INTERVAL = 10.0
"""Seconds between two looks at the limits, if nothing is left to delete."""


class HistorySinkTask(SinkTask[HistorySinkConfig]):
    """Writes each batch in one transaction: after ``put`` it is safe, or nothing of it is written.

    Therefore ``flush`` only lets readings expire. Counters, by value:
    - ``duplicates``: values of a record that is already stored;
    - ``repeated``: equal values of another record, for the same point and time;
    - ``replaced``: stored values of which another record, received later, had another value;
    - ``outdated``: values that were received before the one that is stored;
    - ``expired``: values that are older than the readings that are kept;
    - ``skipped.<kind>``, ``skipped.no_points``, ``skipped.tombstone``: records that are not stored.
    """

    def __init__(self, context: SinkContext, config: HistorySinkConfig) -> None:
        super().__init__(context, config)
        self._path = config.path(context.data_dir).absolute()
        self._kinds = frozenset(config.publishes)
        self._limits = RetentionLimits(
            config.retention_ms, config.rollup_retention_ms, config.retention_bytes
        )
        self._lock: FileLock | None = None
        self._reserve: DiskReserve | None = None
        self._writer: HistoryWriter | None = None
        self._retention: Retention | None = None
        self._retention_due = 0.0
        self._disk_is_full = False

    def start(self) -> None:
        """Own the file, and open it. Raises ``RetriableError``, ``FatalError``."""
        self.stop()
        self._open()

    def put(self, batch: Sequence[SinkRecord]) -> None:
        """Write the batch. Raises ``RetriableError`` if nothing of it is written, ``DataError``."""
        failures: dict[int, Exception] = {}
        counts: Counter[str] = Counter()
        records: dict[int, IdentifiedRecord] = {}
        for index, record in enumerate(batch):
            if skipped := self._skipped(record.value):
                counts[skipped] += 1
                continue
            try:
                values = candidates(record.value)
                records[index] = IdentifiedRecord(identity_of(record), values)
            except ValueError as error:
                failures[index] = error
        if records:
            result = self._write(list(records.values()))
            indexes = list(records)
            failures.update({indexes[number]: cause for number, cause in result.failures.items()})
            counts += result.counts
        for name, number in counts.items():
            self.context.count(name, number)
        self._expire()
        if failures:
            raise DataError(failures)

    def flush(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Delete what has expired; everything that was put is already safe."""
        self._expire()

    def stop(self) -> None:
        """Close the file, and let another task own it."""
        self._close()
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def _skipped(self, value: Any) -> str:
        """Return the counter of a record that has nothing to store, or empty."""
        if value is None:
            return "skipped.tombstone"
        if not isinstance(value, Mapping):
            return ""
        kind = value.get("kind")
        if kind in KINDS and kind not in self._kinds:
            return f"skipped.{kind}"
        if "body" in value and "readings" not in value:  # any other message of the bus
            return "skipped.no_points"
        return ""

    def _write(self, records: Sequence[IdentifiedRecord]) -> WriteResult:
        writer = self._open()
        self._wait_for_room(writer)
        try:
            return writer.write(records)
        except DiskFullError:
            self._disk_is_full = True
            if self._reserve is not None:
                self._reserve.release()
            raise
        except (RetriableError, FatalError):
            self._close()  # the next batch opens it again
            raise

    def _wait_for_room(self, writer: HistoryWriter) -> None:
        """After a full disk: let readings expire, and refuse batches while there is no room.

        The reserve is for deletions; a batch that used it up would make the next full disk a dead end.
        Raises ``DiskFullError``.
        """
        if not self._disk_is_full or self._reserve is None:
            return
        self._retention_due = 0.0
        self._expire()
        if not self._reserve.restore() and writer.free_bytes < self._reserve.size:
            raise disk_full_error(self._path)
        self._disk_is_full = False

    def _open(self) -> HistoryWriter:
        if self._lock is None:
            self._lock = FileLock(self._path)
        if self._writer is None:
            self._writer = HistoryWriter(self._path)
            self._retention = Retention(self._writer, self._limits)
            self._retention_due = 0.0
            self._reserve = DiskReserve(self._path.with_name(f"{self._path.name}.reserve"), _RESERVE_BYTES)
        return self._writer

    def _close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = self._retention = None

    def _expire(self) -> None:
        """Delete a part of what has expired, now and then. An outage ends it until the next time."""
        if self._retention is None or time.monotonic() < self._retention_due:
            return
        try:
            done = self._retention.run(_RETENTION_SECONDS)
        except RetriableError as error:
            log.warning("expired readings cannot be deleted now: %s", error)
            done = True
        self._retention_due = time.monotonic() + (_RETENTION_INTERVAL if done else 0.0)
        if done and self._reserve is not None:
            self._reserve.restore()


class HistorySink(SinkConnector[HistorySinkConfig]):
    """Runs one task, whatever ``tasks.max`` is: a file has one writer."""

    version = "1"
    config_type = HistorySinkConfig
    task_type = HistorySinkTask

    def task_configs(self, max_tasks: int) -> Sequence[Mapping[str, str]]:
        """Return one task."""
        return [self.context.settings]
