"""Changelogs on the local log: a file of their own, with an outbox that keeps it and the main log together.

The changelog file, ``ledger.db``, has its own fsync, so that no entry waits for telemetry. Results and the
group's offset belong to the main log. A write therefore has these steps:

1. One transaction of the changelog file writes the entries, and an *outbox* with the records and the offset.
2. One transaction of the main log writes the content of the outbox, and its number as a mark.
3. The next write's first step removes the outbox.

The next owner of a partition delivers a remaining outbox again, unless the main log has its mark. The file
keeps only the latest record of each key: a write deletes the records that it replaces.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, TypeVar

from tieline.api import DataError, FencedError, RetriableError, TielineError, TopicPartition
from tieline.broker.local.outbox import MAX_BYTES, Outbox, decode_outbox, encode_outbox
from tieline.broker.local.reader import MAX_BATCH_BYTES
from tieline.broker.local.record_check import check_record, check_topic_name
from tieline.broker.local.store import Store
from tieline.broker.local.tables import Tables
from tieline.broker.records import ConsumedRecord, ProducerRecord

T = TypeVar("T")
log = logging.getLogger(__name__)


class ChangelogTarget(NamedTuple):
    """A changelog's topic, the consumed partition and its id in the main log, and the group."""

    topic: str
    partition: TopicPartition
    group: str
    id: int


class ChangelogFile:
    """The file of all changelogs of a local log. Raises ``DataDirInUseError`` if another process owns it."""

    def __init__(self, main: Store) -> None:
        self.main = main
        self.store = Store(main.path.with_name("ledger.db"))
        self.id = self.store.cluster_id
        self.main_id = main.cluster_id
        self.restored_at = self.store.restored_at
        self.owners: dict[TopicPartition, Changelog] = {}  # used by the file's writer thread alone

    def take_over(self, target: ChangelogTarget, partitions: int, timeout: float) -> Changelog:
        """Take over a changelog; see ``Consumer.changelog``. ``partitions``: of the consumed topic."""
        deadline = time.monotonic() + timeout
        changelog = Changelog(self, target)

        def own(tables: Tables) -> None:
            # One outbox holds a whole write; the main log checks the size of each record itself.
            of_outbox = {"cleanup.policy": "compact", "max.message.bytes": str(MAX_BYTES)}
            for topic, config in (
                (target.topic, {"cleanup.policy": "compact"}),
                (changelog.outbox.topic, of_outbox),
            ):
                tables.create_topic(topic, partitions, config)
                tables.add_partitions(topic, partitions)
            self.owners[changelog.partition] = changelog  # from now on writes of earlier owners are refused

        _wait(self.store.submit(own), deadline, target.topic)
        changelog.read(deadline)
        return changelog

    def records(self, partition: TopicPartition) -> Iterator[ConsumedRecord]:
        """Yield the records of a partition of this file."""
        bounds = self.store.bounds(partition.topic)[partition]
        position = bounds.start
        while batch := self.store.read_known(partition, bounds, position, 1_000, MAX_BATCH_BYTES):
            yield from batch
            position = batch[-1].offset + 1


@dataclass(frozen=True)
class _Write:
    """The arguments of a call of ``write``."""

    entries: Mapping[bytes, bytes | None]
    records: Sequence[ProducerRecord]
    offset: int | None


class _Entered(NamedTuple):
    """The result of step 1: the offset of each key's entry, and the outbox."""

    offsets: dict[bytes, int]
    outbox: Outbox | None


@dataclass
class _OpenWrite:
    """A write that has not ended."""

    arguments: _Write
    entering: Future[_Entered]
    delivering: Future[None] | None = None


class Changelog:
    """A ``PartitionChangelog`` on the local log. ``ChangelogFile.take_over`` creates it."""

    def __init__(self, file: ChangelogFile, target: ChangelogTarget) -> None:
        self.entries: dict[bytes, bytes] = {}
        self.restored_at = file.restored_at
        self.offset: int | None = None
        """The group's offset, if opening has completed a write of the previous owner that moved it."""
        self.partition = TopicPartition(target.topic, target.partition.partition)
        self.outbox = TopicPartition(f"{target.topic}-outbox", target.partition.partition)
        self._file = file
        self._target = target
        self._lock = threading.Lock()
        self._offsets: dict[bytes, int] = {}
        self._outboxes: list[int] = []  # delivered outboxes, which the next write removes
        self._open_write: _OpenWrite | None = None

    def read(self, deadline: float) -> None:
        """Read the entries, and deliver what the previous owner has left in the outbox."""
        for record in self._file.records(self.partition):
            key, value = record.key or b"", record.value or b""
            self.entries[key], self._offsets[key] = value, record.offset
        for record in self._file.records(self.outbox):
            outbox, log_id = decode_outbox(record)
            self._outboxes.append(record.offset)
            if log_id not in (None, self._file.main_id):
                log.warning(
                    "%s: records left for another log.db are not written to this one; the entries stay",
                    self._what,
                )
                continue
            if outbox.partition_id == self._target.id:
                self.offset = outbox.offset if outbox.offset is not None else self.offset
            _wait(self._file.main.submit(partial(self._deliver, outbox)), deadline, self._what)

    def write(
        self,
        entries: Mapping[bytes, bytes | None],
        records: Sequence[ProducerRecord],
        offset: int | None,
        timeout: float,
    ) -> None:
        """Write entries, records and the group's offset, all or nothing; see ``PartitionChangelog.write``."""
        arguments = _Write(dict(entries), list(records), offset)
        deadline = time.monotonic() + timeout
        with self._locked(timeout):
            try:
                if self._finish(deadline) == arguments:
                    return  # an earlier call had no answer, and has written it
            except DataError:
                pass  # of an earlier call, which wrote nothing
            self._check(arguments)
            entering = self._file.store.submit(partial(self._enter, arguments))
            self._open_write = _OpenWrite(arguments, entering)
            self._finish(deadline)

    def close(self, timeout: float) -> None:
        """Close the changelog; see ``PartitionChangelog.close``."""

        def disown(tables: Tables) -> None:
            if self._file.owners.get(self.partition) is self:
                del self._file.owners[self.partition]

        _wait(self._file.store.submit(disown), time.monotonic() + timeout, self._what)

    @property
    def _what(self) -> str:
        return f"the changelog {self.partition.topic}-{self.partition.partition}"

    @contextmanager
    def _locked(self, timeout: float) -> Iterator[None]:
        if not self._lock.acquire(timeout=timeout):
            raise RetriableError(f"{self._what}: an earlier write has not ended within {timeout} s")
        try:
            yield
        finally:
            self._lock.release()

    def _finish(self, deadline: float) -> _Write | None:
        """End the open write, and return its arguments; ``None`` if there is none.

        Raises ``RetriableError`` if it has not ended, or nothing of it was written.
        """
        open_write = self._open_write
        if open_write is None:
            return None
        entered = self._wait_entered(open_write, deadline)
        if entered.outbox is not None:
            if open_write.delivering is None:
                open_write.delivering = self._file.main.submit(partial(self._deliver, entered.outbox))
            try:
                _wait(open_write.delivering, deadline, self._what)
            except TielineError:
                if open_write.delivering.done():  # it failed, as on a full disk, and is repeated
                    open_write.delivering = None
                raise
        self._open_write = None
        for key in open_write.arguments.entries:
            self._offsets.pop(key, None)
        self._offsets.update(entered.offsets)
        self._outboxes = [] if entered.outbox is None else [entered.outbox.number]
        return open_write.arguments

    def _wait_entered(self, open_write: _OpenWrite, deadline: float) -> _Entered:
        try:
            return _wait(open_write.entering, deadline, self._what)
        except BaseException:
            if open_write.entering.done():
                self._open_write = None  # nothing was written
            raise

    def _enter(self, arguments: _Write, tables: Tables) -> _Entered:
        """Do step 1, in the file's writer thread."""
        if self._file.owners.get(self.partition) is not self:
            raise FencedError(
                f"{self._what}: another owner has taken over the partition; nothing was written"
            )
        tables.delete(
            self.partition, [self._offsets[key] for key in arguments.entries if key in self._offsets]
        )
        tables.delete(self.outbox, self._outboxes)
        kept = {key: value for key, value in arguments.entries.items() if value is not None}
        topic, number = self.partition
        appended = tables.append([ProducerRecord(topic, v, k, partition=number) for k, v in kept.items()])
        if appended.failures:
            keys = list(kept)
            index = {key: index for index, key in enumerate(arguments.entries)}
            raise DataError({index[keys[failed]]: cause for failed, cause in appended.failures.items()})
        offsets = {
            key: entry.offset for key, entry in zip(kept, appended.metadata, strict=True) if entry is not None
        }
        if not arguments.records and arguments.offset is None:
            return _Entered(offsets, None)
        target_id = self._target.id
        packed = encode_outbox(target_id, arguments.records, arguments.offset, self._file.main_id)
        appended = tables.append([ProducerRecord(self.outbox.topic, packed, partition=number)])
        if appended.failures:
            raise DataError({len(arguments.entries): appended.failures[0]})
        (entry,) = appended.metadata
        assert entry is not None
        return _Entered(offsets, Outbox(entry.offset, target_id, arguments.records, arguments.offset))

    def _deliver(self, outbox: Outbox, tables: Tables) -> None:
        """Do step 2, in the main log's writer thread, unless its mark says that it is done."""
        topic, partition, group, _ = self._target
        mark = tables.source_offset(self.partition.topic, str(self.partition.partition)) or ""
        file, _, number = mark.partition(" ")
        if file == self._file.id and int(number) >= outbox.number:
            return
        for cause in tables.append(
            outbox.records
        ).failures.values():  # it was checked, so the topic has changed
            log.error("an accepted record cannot be written: %s", cause, extra={"changelog": topic})
        if outbox.offset is not None:
            tables.commit_group(group, {partition: outbox.offset}, {partition: outbox.partition_id})
        mark = f"{self._file.id} {outbox.number}"
        tables.save_source_offsets(self.partition.topic, {str(self.partition.partition): mark})

    def _check(self, arguments: _Write) -> None:
        """Raise ``DataError`` for records that the main log would reject, before anything is written."""
        main = self._file.main
        failures: dict[int, Exception] = {}
        for index, record in enumerate(arguments.records, len(arguments.entries)):
            try:
                check_topic_name(record.topic)
                config, partitions = main.described(record.topic) or ({}, main.settings.default_partitions)
                max_bytes = int(config.get("max.message.bytes", main.settings.max_message_bytes))
                check_record(record, max_bytes, partitions)
            except (ValueError, TypeError, AttributeError) as cause:
                failures[index] = cause
        if failures:
            raise DataError(failures)


def _wait(future: Future[T], deadline: float, what: str) -> T:
    """Return the result of a change of a file. When the time is over, the change continues."""
    try:
        return future.result(max(0.0, deadline - time.monotonic()))
    except FutureTimeout:
        if future.done():
            raise
        raise RetriableError(f"{what}: the disk did not answer in time") from None
