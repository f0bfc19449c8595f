"""The contract of a sink task."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from tieline.api.config import Config
from tieline.api.record import SinkRecord, SourceRecord, TopicPartition
from tieline.api.schema import Schema

C = TypeVar("C", bound=Config)


class Changelog(Protocol):
    """The durable, keyed state of a sink task for one partition, which only the partition's owner writes.

    As in Kafka Streams, it belongs to the partition and moves with it to the next owner.
    """

    @property
    def entries(self) -> Mapping[str, Any]:
        """The latest value of each key at the time when the partition was taken over.

        It was read to its end after every earlier owner was fenced. ``write`` does not change it.
        """

    @property
    def first_partitions(self) -> int:
        """The number of partitions of the topic when its changelogs were first used; 0 if unknown.

        If the topic has more now, the changelog of another partition may have the earlier state of a key. The
        same holds for -1, from a version that did not store this number.
        """

    @property
    def restored_at(self) -> int:
        """When the changelog was last restored from a backup, in microseconds since 1970; 0 if never.

        Everything that was written after the backup is lost: what the entries say was not done may have been
        done since then.
        """

    def write(
        self,
        entries: Mapping[str, Any | None],
        records: Sequence[SourceRecord] = (),
        offset: int | None = None,
    ) -> None:
        """Write all arguments atomically, and return when they are safe. Thread-safe; calls wait for a lock.

        A ``None`` in ``entries`` deletes the key. ``records`` are for other topics; with a ``value_schema``
        they are written as Avro, without one as JSON (and so is a key that is not text). ``offset`` is the
        position up to which the partition is done. It becomes the group's committed offset, and a later,
        smaller one does not reset it.

        Raises
        ------
        - ``RetriableError`` if the broker is unavailable and the result is unknown: call again with the same
          arguments; later writes follow this one;
        - ``DataError`` if something can never be written, by its index in ``entries`` and then ``records``,
          with everything in its batch; nothing was written;
        - ``FencedError`` if another task owns the partition; nothing was written.

        After a crash inside the call, the next owner finds all of it or nothing.

        """


class SinkContext(Protocol):
    """What the runtime offers a sink task."""

    @property
    def connector(self) -> str:
        """The connector's name."""

    @property
    def task(self) -> int:
        """The task's number, from 0."""

    @property
    def data_dir(self) -> Path:
        """The worker's ``data.dir``: a task that keeps files of its own puts them there.

        It belongs to this worker alone. Name a file after what is in it, with the ending ``.db`` if it
        is one of SQLite; the folder may not exist yet.
        """

    @property
    def stopping(self) -> bool:
        """Whether the task was asked to stop."""

    @property
    def assignment(self) -> frozenset[TopicPartition]:
        """The partitions that the task owns now."""

    def pause(self, partitions: Collection[TopicPartition]) -> None:
        """Stop fetching from these partitions until ``resume``."""

    def resume(self, partitions: Collection[TopicPartition]) -> None:
        """Fetch from these partitions again."""

    def seek(self, partition: TopicPartition, offset: int) -> None:
        """Continue reading this partition at this offset (Connect's ``offset``)."""

    def request_commit(self) -> None:
        """Commit soon, without waiting for ``offset.flush.interval.ms``."""

    def report(self, record: SinkRecord, error: Exception) -> Future[None]:
        """Make one record of a batch a dead letter, instead of writing it.

        Call it before ``pre_commit`` calls the record safe, best in ``put``. The letter is written with the
        offsets of its partition; the future ends inside the runtime then, so never wait for it in a call. It
        is cancelled if the partition is lost, because the record comes again. Raises ``FatalError`` if there
        is no dead letter queue (``errors.tolerance``): the task stops at this record.
        """

    def changelog(
        self, partition: TopicPartition, schema: Schema, *, name: str = "", acts_on: str = ""
    ) -> Changelog:
        """Take over the changelog of a partition; called inside ``open``, at most once for each partition.

        ``schema`` is that of the entries' values. ``name`` is the connector that owned the changelog, if this
        one was renamed. ``acts_on`` is what the records of the topic act on, such as a device or a
        platform; only one connector may keep a changelog of a topic for it. The runtime closes the changelog
        after ``close``. Raises ``RetriableError``, or ``DataDirInUseError`` if another connector keeps it.
        """

    def partitions(self, topic: str) -> int:
        """Return the last known number of partitions of a topic, for `partition_of`.

        Raises ``RetriableError``.
        """

    def count(self, name: str, number: int = 1) -> None:
        """Add to one of the task's counters, such as ``duplicates``, which the ledger shows."""

    def observe(self, name: str, seconds: float) -> None:
        """Add to a distribution of durations that ``Connector.metrics`` exports. Cheap and thread-safe."""

    def connected(self, system: str) -> None:
        """Report that ``system`` is connected. Cheap and thread-safe: call it after every success."""

    def not_connected(self, system: str, reason: str) -> None:
        """Report that ``system`` ("the platform at tcp://…") cannot be reached; call it after each attempt.

        It is logged at once and again with growing pauses, and shown with the ledger until ``connected``. Do
        not call it for an error that the task raises as ``RetriableError``: the runtime reports that.
        """


class SinkTask(ABC, Generic[C]):
    """Writes to an external system. The calls, in order, all from one thread except ``interrupt``:

    1. ``Task(context, config)``: keep both, and build what connects later; connect to nothing yet.
    2. ``start()``: connect.
    3. ``open(partitions)``: the task owns these from now on (called again when it is assigned more).
    4. ``put(batch)``, again and again. It writes or buffers, and **never sleeps or retries**: raise
       ``RetriableError`` and the runtime waits, keeps the consumer group alive and offers the batch again.
       ``handle_undecodable(record, error)``, in order among them, for records that no converter can read.
    5. ``pre_commit(offsets)``, at intervals: which of these offsets are safe to commit. The default
       flushes and returns every offset.
    6. ``close(partitions, lost)``: the task no longer owns these. Unless they are lost (another task may
       own them already), ``pre_commit`` is called once more before.
    7. ``interrupt()``, **from another thread**: make a waiting call return soon.
    8. ``stop()``, last, from the task's own thread, also if ``start`` failed: release all resources.

    An offset is the position after the last delivered record. After a crash a record may be delivered
    again, with the same ``tieline.id`` in its headers.
    """

    takes_unreadable: ClassVar[bool] = False
    """Whether ``put`` also gets records that no converter can read, with an ``Unreadable`` as their value.

    It replaces ``handle_undecodable`` for a task that handles many of them at once.
    """

    def __init__(self, context: SinkContext, config: C) -> None:
        self.context = context
        self.config = config

    def start(self) -> None:
        """Connect to the external system. Called once, and again after a ``RetriableError``."""

    def open(self, partitions: Collection[TopicPartition]) -> None:
        """Take over these partitions."""

    @abstractmethod
    def put(self, batch: Sequence[SinkRecord]) -> None:
        """Write or buffer the batch; the records of one partition are in order.

        Raises ``RetriableError`` (nothing of the batch, or of the partitions named, was written, except up
        to the offsets in ``reached``), ``DataError`` with an index → cause map (everything else was
        written), or ``FatalError``.
        """

    def handle_undecodable(self, record: SinkRecord, error: Exception) -> bool:
        """Handle a record that the converters cannot read, in the order of its partition's records.

        ``record``: key and value are the original bytes, without a schema. Return true if it was handled,
        durably; it then counts as delivered. The default returns false: it is treated as any data error.
        Raises ``RetriableError`` (it is offered again), ``FatalError``.
        """
        return False

    def flush(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Write what ``put`` has buffered; return only when it is safe. Raises as ``put`` does."""

    def pre_commit(self, offsets: Mapping[TopicPartition, int]) -> Mapping[TopicPartition, int]:
        """Return which of these offsets (or earlier ones) are safe to commit; an empty map commits nothing.

        The default flushes and returns every offset. A task that moves offsets with ``Changelog.write``
        may always return an empty map.
        """
        self.flush(offsets)
        return offsets

    def close(self, partitions: Collection[TopicPartition], lost: bool) -> None:
        """Give up these partitions. ``lost``: another task may already own them."""

    def interrupt(self) -> None:
        """Make a waiting call return soon. Called from another thread."""

    def stop(self) -> None:
        """Release all resources. Always the last call."""
