"""The local log: the broker interface on one SQLite file."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tieline.api import DataError, FatalError, RetriableError, TopicPartition
from tieline.broker.local.changelog import ChangelogFile
from tieline.broker.local.consumer import LocalConsumer
from tieline.broker.local.file import LogSettings
from tieline.broker.local.group import Group
from tieline.broker.local.offset_admin import LocalOffsetAdmin
from tieline.broker.local.producer import LocalProducer
from tieline.broker.local.reader import MAX_BATCH_BYTES
from tieline.broker.local.store import Store
from tieline.broker.local.tables import Tables
from tieline.broker.local.topic_reader import LocalTopicReader
from tieline.broker.pending_writes import PendingWrites
from tieline.broker.port import ExclusiveWriter
from tieline.broker.records import ConsumedRecord, TopicInfo

_READ_BATCH = 1_000


class LocalLog:
    """A ``Broker`` for one computer. Consumer groups are within this process, their offsets in the file.

    Retention deletes nothing before ``protect`` is called.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self._groups: dict[str, Group] = {}
        self._changelogs: ChangelogFile | None = None
        self._holders: dict[str, threading.Lock] = {}
        self._lock = threading.Lock()

    @classmethod
    def open(
        cls, folder: Path, *, owner: bool = True, file: str = "log.db", settings: LogSettings | None = None
    ) -> LocalLog:
        """Open the log in a folder, or create it. Raises ``DataDirInUseError`` and ``StartupError``.

        ``owner=False``: read and produce beside a running worker.
        """
        return cls(Store(folder / file, owner=owner, settings=settings))

    @property
    def cluster_id(self) -> str:
        """The broker's permanent id; see ``Broker.cluster_id``."""
        return self.store.cluster_id

    def producer(self, client_id: str, overrides: Mapping[str, str]) -> LocalProducer:
        """Return a new producer; see ``Broker.producer``."""
        return LocalProducer(self.store)

    def consumer(
        self,
        group: str,
        client_id: str,
        overrides: Mapping[str, str],
        producer_overrides: Mapping[str, str] | None = None,
    ) -> LocalConsumer:
        """Return a new group member; see ``Broker.consumer``."""
        with self._lock:
            members = self._groups.setdefault(group, Group(self.store.wake))
        return LocalConsumer(self.store, group, members, self.changelogs)

    def changelogs(self) -> ChangelogFile:
        """Return the file of the changelogs, opened on the first call. Raises ``DataDirInUseError``."""
        with self._lock:
            if self._changelogs is None:
                self._changelogs = ChangelogFile(self.store)
            return self._changelogs

    def source_offsets(self, connector: str, timeout: float) -> dict[str, str]:
        """Return the saved source offsets of a connector; see ``Broker.source_offsets``."""
        return self.store.source_offsets(connector)

    def source_notes(self, connector: str, timeout: float) -> dict[str, str]:
        """Return the notes of the saved source offsets; see ``Broker.source_notes``."""
        return self.store.source_notes(connector)

    @property
    def offsets(self) -> LocalOffsetAdmin:
        """The offsets of stopped connectors; see ``Broker.offsets``."""
        return LocalOffsetAdmin(self.store)

    def create_topic(
        self,
        name: str,
        *,
        partitions: int = -1,
        replication: int = -1,
        config: Mapping[str, str] | None = None,
        timeout: float = 10.0,
    ) -> bool:
        """Create a topic, or return ``False`` if it exists; see ``Broker.create_topic``."""
        return self.store.create_topic(name, partitions, config, timeout)

    def delete_topic(self, name: str, timeout: float = 10.0) -> bool:
        """Delete a topic, its records and its groups' offsets. Return ``False`` if it does not exist."""
        return self.store.delete_topic(name, timeout)

    def topics(self, timeout: float = 10.0) -> dict[str, TopicInfo]:
        """Return all topics by name; see ``Broker.topics``."""
        return self.store.topics()

    def topic_names(self, timeout: float = 10.0) -> Collection[str]:
        """Return the names of all topics; see ``Broker.topic_names``."""
        return self.store.topics().keys()

    def read(
        self,
        topic: str,
        visit: Callable[[ConsumedRecord], None],
        *,
        start: Mapping[int, int] | None = None,
        timeout: float = 30.0,
    ) -> dict[int, int]:
        """Visit every record of a topic up to its present end; see ``Broker.read``."""
        deadline = time.monotonic() + timeout
        reached = dict(start or {})
        for partition, bounds in self.store.bounds(topic).items():
            position = max(reached.get(partition.partition, 0), bounds.start)
            while position < bounds.end:
                if time.monotonic() >= deadline:
                    raise RetriableError(f"{topic}: the end was not reached within {timeout} s")
                batch = self.store.read_known(partition, bounds, position, _READ_BATCH, MAX_BATCH_BYTES)
                for record in batch:
                    if record.offset >= bounds.end:
                        break
                    visit(record)
                position = batch[-1].offset + 1 if batch else bounds.end
            reached[partition.partition] = max(bounds.end, reached.get(partition.partition, 0))
        return reached

    def reader(
        self,
        topic: str,
        *,
        since: int | None = None,
        partitions: Collection[int] | None = None,
        timeout: float = 10.0,
    ) -> LocalTopicReader:
        """Return a reader of a topic outside any group; see ``Broker.reader``."""
        return LocalTopicReader(self.store, topic, since, partitions)

    @contextmanager
    def exclusive(self, topic: str, timeout: float = 10.0) -> Iterator[ExclusiveWriter]:
        """Become the only writer of a topic; see ``Broker.exclusive``.

        Other threads wait. A writer in another process makes it fail.
        """
        with self._lock:
            holder = self._holders.setdefault(topic, threading.Lock())
        if not holder.acquire(timeout=timeout):
            raise RetriableError(f"{topic}: another thread has held it for {timeout} s")
        try:
            ends = self._ends(topic)
            pending = _LocalPendingWrites(topic)
            yield pending
            if pending.records:
                self.store.submit(lambda tables: pending.write(tables, ends)).result()
        finally:
            holder.release()

    def protect(self, groups: Mapping[str, tuple[Sequence[str], str | None]]) -> None:
        """Start retention; see ``Broker.protect``."""
        try:
            readers = [
                (name, frozenset(topics), None if pattern is None else re.compile(pattern))
                for name, (topics, pattern) in groups.items()
            ]
        except re.error as error:
            raise FatalError(f"{error.pattern!r} is not a regular expression: {error}") from None

        def unread() -> dict[TopicPartition, int]:
            keep: dict[TopicPartition, int] = {}
            partitions = self.store.snapshot()
            for name, topics, pattern in readers:
                stored = self.store.committed(name)
                for partition in partitions:
                    topic = partition.topic
                    if topic in topics or (pattern is not None and pattern.fullmatch(topic)):
                        keep[partition] = min(stored.get(partition, 0), keep.get(partition, 1 << 62))
            return keep

        self.store.retain(unread)

    def close(self) -> None:
        """Close everything; see ``Broker.close``."""
        if self._changelogs is not None:
            self._changelogs.store.close()
        self.store.close()

    def _ends(self, topic: str) -> list[int]:
        return [bounds.end for _, bounds in sorted(self.store.bounds(topic).items())]


class _LocalPendingWrites(PendingWrites):
    """Appended records, which one transaction writes."""

    def write(self, tables: Tables, ends: Sequence[int]) -> None:
        """Write all or nothing, in the writer's transaction. ``ends``: the topic's, when it was held."""
        if tables.ends(self.topic) != ends:
            raise RetriableError(f"{self.topic}: another process wrote meanwhile; nothing was written")
        appended = tables.append(self.records)
        if appended.failures:
            raise DataError(appended.failures)
