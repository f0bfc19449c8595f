"""The contract of a sink task."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import Future
from typing import Generic, Protocol, TypeVar

from tieline.api.config import Config
from tieline.api.record import SinkRecord, TopicPartition

C_contra = TypeVar("C_contra", bound=Config, contravariant=True)


class SinkContext(Protocol):
    """What the runtime offers a sink task."""

    @property
    def connector(self) -> str:
        """The connector's name."""

    @property
    def task(self) -> int:
        """The task's number, from 0."""

    @property
    def stopping(self) -> bool:
        """True once the task was asked to stop."""

    @property
    def assignment(self) -> frozenset[TopicPartition]:
        """The partitions that the task owns now."""

    def pause(self, partitions: Collection[TopicPartition]) -> None:
        """Stop fetching from these partitions until ``resume``."""

    def resume(self, partitions: Collection[TopicPartition]) -> None:
        """Fetch from these partitions again."""

    def seek(self, partition: TopicPartition, offset: int) -> None:
        """Go on reading this partition at this offset (Connect's ``offset``)."""

    def request_commit(self) -> None:
        """Commit soon, without waiting for ``offset.flush.interval.ms``."""

    def report(self, record: SinkRecord, error: Exception) -> Future[None]:
        """Hand one record to the dead letter queue; its partition commits only after the future is done.

        Raises ``Fatal`` where no dead letter queue is configured: the task stops at this record.
        """

    def count(self, name: str, number: int = 1) -> None:
        """Add to one of the task's own counters, such as ``duplicates``; shown with the ledger."""


class SinkTask(ABC, Generic[C_contra]):
    """Writes outside. In calling order, all from one thread but ``stop``:

    1. ``start(context, config)``
    2. ``open(partitions)``: the task owns these from now on (also later, when it is given more).
    3. ``put(batch)``, again and again. It writes or buffers, and **never sleeps or retries**: raise
       ``Retriable`` and the runtime waits, keeps the consumer group alive and offers the batch again.
    4. ``pre_commit(offsets)``, at intervals: which of these offsets are safe to commit. As it stands:
       ``flush`` what is buffered, then all of them.
    5. ``close(partitions, lost)``: the task owns these no longer. Before it, unless they are lost
       (another task may own them already), ``pre_commit`` was called once more.
    6. ``stop()``, **from another thread**: make a waiting call return soon.
    7. ``shutdown()``: after the last call of the others, from the task's own thread: let everything go.

    An offset is the position after the last record handed over. A record may come again after a
    crash: ``tieline.id`` in its headers is then the same.
    """

    @abstractmethod
    def start(self, context: SinkContext, config: C_contra) -> None:
        """Open the outside. Called once. May raise ``Retriable``; it is then called again."""

    def open(self, partitions: Collection[TopicPartition]) -> None:
        """The task owns these partitions from now on."""

    @abstractmethod
    def put(self, batch: Sequence[SinkRecord]) -> None:
        """Write or buffer the batch; the records of one partition are in order.

        Raises ``Retriable`` (nothing of the batch, or nothing of the partitions named, was written),
        ``DataError(index → cause)`` (everything else was), ``Fatal``.
        """

    def flush(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Write what ``put`` has buffered; return only when it is safe. Raises as ``put``."""

    def pre_commit(self, offsets: Mapping[TopicPartition, int]) -> Mapping[TopicPartition, int]:
        """Which of these offsets (or earlier ones) are safe to commit; an empty map commits nothing."""
        self.flush(offsets)
        return offsets

    def close(self, partitions: Collection[TopicPartition], lost: bool) -> None:
        """The task owns these partitions no longer; ``lost``: not for some time already."""

    def stop(self) -> None:
        """Make a waiting call return soon. From another thread."""

    def shutdown(self) -> None:
        """Let everything go. Called once, last."""
