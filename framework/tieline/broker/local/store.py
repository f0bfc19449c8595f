"""One log file: the base of the local log and of the spool."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TypeVar

import apsw
from typing_extensions import Self

from tieline.api import DataError, FatalError, RecordMetadata, StartupError, TopicPartition
from tieline.api.private_files import DiskReserve, make_private
from tieline.broker.local.file import LogSettings, connect, to_tieline_error
from tieline.broker.local.keeper import Keeper, Unread
from tieline.broker.local.layout import OFFSET_MASK, Removed
from tieline.broker.local.ownership import Lock, tighten, tighten_folder
from tieline.broker.local.reader import Bounds, Reader
from tieline.broker.local.tables import Tables
from tieline.broker.local.watch import CommitWatch
from tieline.broker.local.writer import Writer
from tieline.broker.records import ProducerRecord

T = TypeVar("T")
_STEP = 2_000


class Store(Reader):
    """Reads and writes one log file: topics, partitions and offsets. Any thread may use it.

    There is one owner, which keeps the file small. Guests (``owner=False``) in other processes read and write
    beside it, and waiting threads of the owner notice that within milliseconds. Writing calls return after
    the fsync, which concurrent callers share. Each may raise ``RetriableError`` or ``FatalError``.
    """

    def __init__(self, path: Path, *, owner: bool = True, settings: LogSettings | None = None) -> None:
        """Open a file, or create it. Raises ``DataDirInUseError`` and ``StartupError``."""
        if path.is_symlink():  # the files of SQLite and the lock belong beside the file itself
            path = path.resolve()
        super().__init__(path)
        self.settings = settings = settings or LogSettings()
        try:
            make_private(path)
            self._lock = Lock(path) if owner else None
        except OSError as error:
            raise StartupError(
                f"the folder {path.parent} cannot be written: {error.strerror}; check data.dir, its "
                "permissions and its disk"
            ) from error
        try:
            connection = connect(path)
            self._watch = CommitWatch(path, owner=owner)
        except BaseException:
            if self._lock is not None:
                self._lock.release()
            raise
        if owner:
            tighten(path.with_name(path.name + end) for end in ("", "-wal", "-shm", ".lock", ".reserve"))
            tighten_folder(path.parent)
        reserve = None
        if owner and settings.reserve_bytes > 0:
            reserve = DiskReserve(path.with_name(path.name + ".reserve"), settings.reserve_bytes)
        self._writer = Writer(path, connection, Tables(connection, settings, reserve), self._watch.committed)
        self._keeper = Keeper(path, connection, self._writer, settings) if owner else None
        self._snapshot: tuple[int, Mapping[TopicPartition, Bounds]] = (-1, {})

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def submit(self, change: Callable[[Tables], T]) -> Future[T]:
        """Queue a change, in order. The future ends after the fsync."""
        return self._writer.submit(change)

    def append(self, records: Sequence[ProducerRecord], timeout: float = 30.0) -> list[RecordMetadata]:
        """Write records, and return their offsets when they are safe.

        Raises ``DataError`` for records that can never be written; the others are. Raises ``RetriableError``
        if the disk is full.
        """
        appended = self._writer.run(lambda tables: tables.append(records), timeout)
        if appended.failures:
            raise DataError(appended.failures)
        return [metadata for metadata in appended.metadata if metadata is not None]

    def create_topic(
        self, name: str, partitions: int = -1, config: Mapping[str, str] | None = None, timeout: float = 30.0
    ) -> bool:
        """Create a topic. Return ``False`` if it exists."""
        return self._writer.run(lambda tables: tables.create_topic(name, partitions, config or {}), timeout)

    def delete_topic(self, name: str, timeout: float = 30.0) -> bool:
        """Delete a topic, its records and its groups' offsets. Return ``False`` if it does not exist."""
        return self._writer.run(lambda tables: tables.delete_topic(name), timeout)

    def commit(
        self,
        group: str,
        offsets: Mapping[TopicPartition, int],
        timeout: float = 30.0,
        ids: Mapping[TopicPartition, int] | None = None,
        records: Sequence[ProducerRecord] = (),
        notes: Mapping[TopicPartition, str] | None = None,
    ) -> None:
        """Store the offsets of a group, or of any named reader, with records and notes, all or nothing.

        ``ids``: the ``Bounds.id`` of each partition, so that no offset goes to a later topic of the same
        name. Raises ``DataError`` for records that can never be written.
        """

        def change(tables: Tables) -> None:
            if records:
                failures = tables.append(records).failures
                if failures:
                    raise DataError(failures)
            tables.commit_group(group, offsets, ids or {}, notes)

        self._writer.run(change, timeout)

    def save_source_offsets(
        self,
        connector: str,
        offsets: Mapping[str, str | None],
        timeout: float = 30.0,
        notes: Mapping[str, str] | None = None,
    ) -> None:
        """Store source offsets with their notes. ``None`` removes one."""
        self._writer.run(lambda tables: tables.save_source_offsets(connector, offsets, notes), timeout)

    def delete_before(
        self,
        topic: str,
        partition: int,
        offset: int,
        timeout: float = 30.0,
        also: Callable[[Tables], object] | None = None,
    ) -> Removed:
        """Delete the records below an offset, in small steps. Later offsets continue after the deleted ones.

        ``also``: a change in the same transaction as the last step. The records of a damaged page cannot be
        deleted: they stay in the file, and are never read again.
        """
        return self._remove(TopicPartition(topic, partition), offset, OFFSET_MASK, timeout, also)

    def advance(self, topic: str, partition: int, offset: int, timeout: float = 30.0) -> None:
        """Let a partition continue at this offset, unless it is beyond it."""
        self._writer.run(lambda tables: tables.advance(TopicPartition(topic, partition), offset), timeout)

    def drop_oldest(self, topic: str, partition: int, max_records: int, timeout: float = 30.0) -> Removed:
        """Delete the oldest records of a partition, at most ``max_records``."""
        return self._remove(TopicPartition(topic, partition), OFFSET_MASK, max_records, timeout)

    def retain(self, unread: Unread) -> None:
        """Start retention, which deletes nothing that ``unread`` names."""
        if self._keeper is not None:
            self._keeper.retain(unread)

    @property
    def version(self) -> int:
        """A number that grows with every commit of any process. Read it before reading, then ``wait``."""
        try:
            return self._watch.look()
        except apsw.Error as error:
            raise to_tieline_error(error, self.path) from error

    def wait(self, version: int, timeout: float) -> int:
        """Wait until any process commits after ``version``. Return the version then."""
        now = self._watch.wait(version, timeout)
        self._must_be_open()
        return now

    def snapshot(self) -> Mapping[TopicPartition, Bounds]:
        """Return the present bounds of every partition. There is one query per version for all callers."""
        version = self._watch.look()
        known, bounds = self._snapshot
        if known != version:
            bounds = self.bounds()
            self._snapshot = (version, bounds)
        return bounds

    def wake(self) -> None:
        """End every ``wait``."""
        self._watch.wake()

    def close(self) -> None:
        """Finish what was submitted, and close the file. For one thread; a second call does nothing."""
        if not self._open:
            return
        super().close()
        if self._keeper is not None:
            self._keeper.close()
        self._writer.close()
        self._watch.close()
        if self._lock is not None:
            self._lock.release()

    def _remove(
        self,
        partition: TopicPartition,
        before: int,
        max_records: int,
        timeout: float,
        also: Callable[[Tables], object] | None = None,
    ) -> Removed:
        def remove(tables: Tables, how: Callable[..., Removed], most: int) -> Removed:
            removed = how(tables, partition=partition, before=before, max_records=most)
            if also is not None and removed.records < most:
                also(tables)
            return removed

        deadline = time.monotonic() + timeout
        records = size = 0
        while True:
            step = min(_STEP, max_records - records)
            change = partial(remove, how=Tables.remove, most=step)
            try:
                removed = self._writer.run(change, max(0.0, deadline - time.monotonic()))
            except FatalError:  # a damaged page cannot be changed
                change = partial(remove, how=Tables.skip, most=step)
                removed = self._writer.run(change, max(0.0, deadline - time.monotonic()))
            records += removed.records
            size += removed.bytes
            if removed.records < step or records >= max_records:
                return Removed(records, size, removed.start)
