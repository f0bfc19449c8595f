"""The sink: buffers open segments, writes ended ones, and commits at the start of an open segment."""

from __future__ import annotations

import functools
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import pyarrow as pa

from tieline.api import DataError, SinkConnector, SinkContext, SinkRecord, SinkTask, TopicPartition
from tieline_parquet.config import ParquetSinkConfig
from tieline_parquet.folders import Folders, escaped
from tieline_parquet.rows import Layout
from tieline_parquet.segment import Cutter, Row, Segment
from tieline_parquet.store import Store, open_store, url_problem

Failures = dict[int, Exception]
_MAX_NAME = 255


class _Numbered(NamedTuple):
    """A record, its index in the batch, its time and its folder."""

    number: int
    record: SinkRecord
    time: int | None
    folder: str


class _Buffer:
    """One segment: its rows by folder until they are written, then its offsets until it is committed."""

    def __init__(self, segment: Segment) -> None:
        self.segment = segment
        self.last = segment.start
        self.written = False
        self.batches: dict[str, list[Any]] = {}

    def add(self, segment: Segment, last: int, batch: Any, folders: Sequence[str]) -> None:
        """Add the rows of ``batch``, one for each of ``folders``; ``last`` is the offset of the last row."""
        self.segment, self.last = segment, last
        if len(set(folders)) == 1:
            self.batches.setdefault(folders[0], []).append(batch)
            return
        rows: dict[str, list[int]] = {}
        for index, folder in enumerate(folders):
            rows.setdefault(folder, []).append(index)
        for folder, indexes in rows.items():
            self.batches.setdefault(folder, []).append(batch.take(pa.array(indexes)))


class ParquetSinkTask(SinkTask[ParquetSinkConfig]):
    """Writes each segment of a partition (``segment.py``) as a file in each folder that it has rows for.

    A segment is kept in memory until it has ended; the next call then writes it. After a crash, records that
    were not written are delivered again from the first record of a segment, and give the same files.
    """

    def __init__(self, context: SinkContext, config: ParquetSinkConfig) -> None:
        super().__init__(context, config)
        self._cutter = Cutter(config.flush_size, config.rotate_interval_ms)
        self._folders = Folders(
            config.date_name, config.time_field, config.time_unit, config.partition_fields
        )
        self._buffers: dict[TopicPartition, list[_Buffer]] = {}
        self._store: Store | None = None

    def start(self) -> None:
        """Open the store for the files."""
        pa.array([None])  # imports pandas, if it is installed, for up to seconds; put must not
        self._open_store()

    def put(self, batch: Sequence[SinkRecord]) -> None:
        """Write ended segments, then buffer the batch. Records that cannot be rows raise ``DataError``."""
        self._write_ended()
        failures: Failures = {}
        by_partition: dict[TopicPartition, list[_Numbered]] = {}
        for index, record in enumerate(batch):
            if record.value is None:
                self.context.count("null_values")
                continue
            try:
                time = self._folders.time(record)
                folder = f"{_escaped_topic(record.topic)}/{self._folders.of(record, time)}"
                numbered = _Numbered(index, record, time, folder)
            except ValueError as error:
                failures[index] = error
            else:
                by_partition.setdefault(record.consumed_from, []).append(numbered)
        for partition, records in by_partition.items():
            if len(_file_name(partition, 0)) > _MAX_NAME:
                too_long = ValueError(f"the topic's name is too long for a file's name: {partition.topic}")
                failures.update({item.number: too_long for item in records})
                continue
            for run in _runs(records):
                self._buffer(partition, run, failures)
        if failures:
            raise DataError(failures)

    def flush(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Write all segments that have ended."""
        self._write_ended()

    def pre_commit(self, offsets: Mapping[TopicPartition, int]) -> Mapping[TopicPartition, int]:
        """Return the first offset of the open segment, or of the segment that an offset lies in."""
        self.flush(offsets)
        return {partition: self._safe(partition, offset) for partition, offset in offsets.items()}

    def close(self, partitions: Collection[TopicPartition], lost: bool) -> None:
        """Drop open segments; the next owner gets their records again."""
        for partition in partitions:
            self._buffers.pop(partition, None)

    def stop(self) -> None:
        """Close the store for the files."""
        if self._store is not None:
            self._store.close()
        self._store = None

    def _open_store(self) -> Store:
        """Return the store for the files; the first call opens it. Raises ``RetriableError``."""
        if self._store is None:
            self._store = open_store(self.config.url, self.config.codec)
        return self._store

    def _buffer(self, partition: TopicPartition, run: Sequence[_Numbered], failures: Failures) -> None:
        """Buffer records of one schema; add those that cannot be rows to ``failures``."""
        schema = run[0].record.value_schema
        try:
            layout = Layout.of(schema, self._folders.names)
        except ValueError as error:
            failures.update({item.number: error for item in run})
            return
        converted = layout.rows([item.record for item in run])
        failures.update({run[index].number: error for index, error in converted.failures.items()})
        good = [run[index] for index in converted.good]
        rows = [Row(item.record.offset, item.time, schema) for item in good]
        buffers = self._buffers.setdefault(partition, [])
        for cut, segment in self._cutter.cut(buffers[-1].segment if buffers else None, rows):
            if cut.first:
                buffers.append(_Buffer(segment))
            part = converted.batch.slice(cut.begin, cut.end - cut.begin)
            folders = [item.folder for item in good[cut.begin : cut.end]]
            buffers[-1].add(segment, rows[cut.end - 1].offset, part, folders)

    def _safe(self, partition: TopicPartition, offset: int) -> int:
        buffers = self._buffers.get(partition, [])
        while buffers and buffers[0].written and buffers[0].last < offset:
            del buffers[0]
        return min(offset, buffers[0].segment.start) if buffers else offset

    def _write_ended(self) -> None:
        for partition, buffers in self._buffers.items():
            for buffer in buffers:
                ended = buffer is not buffers[-1] or self._cutter.is_full(buffer.segment)
                if ended and not buffer.written:
                    self._write(partition, buffer)

    def _write(self, partition: TopicPartition, buffer: _Buffer) -> None:
        name, store = _file_name(partition, buffer.segment.start), self._open_store()
        for folder, batches in list(buffer.batches.items()):
            store.write(f"{folder}/{name}", pa.Table.from_batches(batches))
            self.context.count("files")
            del buffer.batches[folder]
        buffer.written = True


class ParquetSink(SinkConnector[ParquetSinkConfig]):
    """Parquet files for Spark, pandas and DuckDB, in folders by date; a redelivery writes the same files."""

    version = "1"
    config_type = ParquetSinkConfig
    task_type = ParquetSinkTask

    @classmethod
    def validate(cls, config: ParquetSinkConfig) -> list[tuple[str, str]]:
        """Return a problem if the URL cannot be used."""
        problem = url_problem(config.url)
        return [("store.url", problem)] if problem else []


@functools.lru_cache(maxsize=1024)
def _escaped_topic(topic: str) -> str:
    return escaped(topic)


def _file_name(partition: TopicPartition, start: int) -> str:
    return f"{_escaped_topic(partition.topic)}+{partition.partition}+{start:020d}.parquet"


def _runs(records: Sequence[_Numbered]) -> list[list[_Numbered]]:
    """Split records into runs with the same schema."""
    runs: list[list[_Numbered]] = []
    for item in records:
        if runs and runs[-1][-1].record.value_schema == item.record.value_schema:
            runs[-1].append(item)
        else:
            runs.append([item])
    return runs
