"""The broker interface, which Kafka and the local log implement.

Records and source offsets are acknowledged together, as one unit. tests/contract/broker runs one suite on
both backends.

Every method raises ``RetriableError`` while the broker is unavailable, ``AccessDeniedError`` while it refuses
something that an operator can allow, and ``FatalError`` if waiting does not help. No call blocks longer than
its time-out. Every ``timeout`` is in seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager
from typing import Protocol

from tieline.api import FatalError, TopicPartition
from tieline.broker.offset_admin import OffsetAdmin
from tieline.broker.records import (
    Committed,
    ConsumedRecord,
    Delivery,
    ProducerRecord,
    Skipped,
    TopicInfo,
    Unit,
)


class UnreadableError(FatalError):
    """The client cannot read what a partition holds at a position, and trying again does not help."""


class RefusedNowError(ValueError):
    """The cause of a ``DataError`` if the broker's present settings or a clock reject the record.

    The same record may be accepted later.
    """


class TooLargeError(RefusedNowError):
    """The record is larger than its topic accepts at present.

    It waits for an operator, or becomes a dead letter: its topic's limit is about records like this one.
    """


class Producer(Protocol):
    """Sends units in order, and never gives up by itself. Used by one thread."""

    @property
    def in_flight_bytes(self) -> int:
        """The bytes that were sent and not yet reported by ``poll``. The caller limits them."""

    def send(self, unit: Unit) -> None:
        """Send a unit without waiting. ``poll`` reports the outcomes in the order of sending."""

    def poll(self, timeout: float) -> list[Delivery]:
        """Return the units that have ended, waiting at most ``timeout`` seconds for the first.

        Raises ``RetriableError`` if the producer broke; its units in flight must then be sent again.
        """

    def save_offsets(
        self,
        connector: str,
        offsets: Mapping[str, str],
        timeout: float,
        notes: Mapping[str, str] | None = None,
    ) -> None:
        """Store source offsets that the task's delivery ledger calls safe; return when they are stored.

        ``notes``: a short text for a source partition, stored or lost with its offset. An offset without a
        note removes the previous note. An offset that came with a later unit is never set back.
        """

    def close(self, timeout: float) -> None:
        """Close. What is not acknowledged within ``timeout`` is abandoned and not reported."""


class RebalanceListener(Protocol):
    """Reacts to changes of a consumer's partitions.

    ``Consumer.poll`` and ``close`` call it, on the caller's thread.
    """

    def assigned(self, partitions: Collection[TopicPartition]) -> None:
        """The consumer now also owns these."""

    def revoked(self, partitions: Collection[TopicPartition]) -> None:
        """The consumer no longer owns these after this returns; it may still commit their offsets."""

    def lost(self, partitions: Collection[TopicPartition]) -> None:
        """The consumer no longer owns these, and another member may; commit nothing for them."""


class PartitionChangelog(Protocol):
    """The changelog of one consumed partition, and the only way to write it; see ``Consumer.changelog``.

    Any thread may write. Calls wait for each other, at most for their time-out.
    """

    @property
    def entries(self) -> Mapping[bytes, bytes]:
        """The latest value of each key when the partition was taken over. ``write`` does not change it."""

    @property
    def restored_at(self) -> int:
        """When it was last restored from a backup, in microseconds since 1970; 0 if never."""

    def write(
        self,
        entries: Mapping[bytes, bytes | None],
        records: Sequence[ProducerRecord],
        offset: int | None,
        timeout: float,
    ) -> None:
        """Write entries, records of other topics and the group's offset, all or nothing.

        An entry ``None`` deletes its key; an offset ``None`` leaves the group's as it is. Raises

        - ``RetriableError``: it may have been written. The next call first finds out, and writes nothing if
          it has the same arguments and they were written.
        - ``DataError``: nothing was written. The indices count ``entries``, then ``records``; a broker
          rejects whole batches, so records that shared one with an invalid record are named, too.
        - ``FencedError``: nothing was written, and this writer is of no further use, because the partition
          was taken over or must be taken over again.
        """

    def close(self, timeout: float) -> None:
        """Close. ``write`` raises ``FencedError`` from now on."""


class Consumer(Protocol):
    """A member of a consumer group. Used by one thread.

    A partition starts at the group's committed offset, else at its beginning. If a topic is deleted and
    recreated, its partitions are reported as lost and assigned, and read from their beginning.
    """

    @property
    def gapless(self) -> bool:
        """Whether every offset is a record, except those that ``skipped`` returns. Any thread may read it."""

    def subscribe(self, topics: Sequence[str], pattern: str | None, listener: RebalanceListener) -> None:
        """Join the group for these topics, and for all whose whole name matches the pattern."""

    def poll(self, max_records: int, timeout: float) -> list[ConsumedRecord]:
        """Return the next records, waiting at most ``timeout`` seconds; also keeps the membership alive."""

    def pause(self, partitions: Collection[TopicPartition]) -> None:
        """Return nothing from these partitions until ``resume``, starting with the next ``poll``."""

    def resume(self, partitions: Collection[TopicPartition]) -> None:
        """Return records from these again, from where they stopped."""

    def seek(self, partition: TopicPartition, offset: int) -> None:
        """Continue at this offset, or at the next one that exists."""

    def commit(
        self,
        offsets: Mapping[TopicPartition, int],
        timeout: float,
        records: Sequence[ProducerRecord] = (),
        notes: Mapping[TopicPartition, str] | None = None,
    ) -> None:
        """Commit offsets, each the position after the last record done; return when they are safe.

        For use in ``revoked``, or when ``poll`` is not called again. Without an answer it raises
        ``RetriableError`` after ``timeout`` seconds; then any call but ``close`` may wait for the broker.

        ``records``: written before the offsets are committed, in this order. The local log writes both in one
        transaction. Kafka acknowledges all records first; after an error some may be written. Give the same
        records again until a commit succeeds. Raises ``DataError`` by the index of a record that cannot be
        written; then no offset is committed.

        ``notes``: a text for each partition, stored with its offset and returned by ``committed``. It has at
        most 4,096 bytes in UTF-8 and no NUL, else ``FatalError`` is raised. A commit without a note removes
        the previous one.
        """

    def commit_async(
        self,
        offsets: Mapping[TopicPartition, int],
        records: Sequence[ProducerRecord] = (),
        notes: Mapping[TopicPartition, str] | None = None,
    ) -> Future[None]:
        """Start to commit as ``commit`` does. The future ends inside ``poll``, when all is safe or failed.

        Only the future of the last call is followed. If its records are not acknowledged yet, a later commit
        replaces it.
        """

    def committed(
        self, partitions: Collection[TopicPartition], timeout: float
    ) -> dict[TopicPartition, Committed]:
        """Return the group's committed offsets with their notes. A partition without an offset is left out.

        Other programs may have written a note.
        """

    def changelog(self, topic: str, partition: TopicPartition, timeout: float) -> PartitionChangelog:
        """Take over the changelog ``topic`` of an owned partition; call this in ``assigned`` or later.

        A missing topic is created, compacted, with as many partitions as the consumed one. The previous owner
        is fenced, then the changelog is read to its end. After a ``RetriableError`` call again; what was read
        is not read twice.
        """

    def skipped(self) -> list[Skipped]:
        """Return the ranges that were passed over since the last call."""

    def topic_id(self, topic: str) -> str | None:
        """Return the id of the topic that ``poll`` has last returned records of; ``None`` if unknown."""

    def lag(self) -> dict[TopicPartition, int | None]:
        """Return how many offsets each owned partition is behind its end, without waiting.

        ``None``: unknown, because nothing of the partition was read yet or its leader does not answer. Each
        call asks the broker for the next one, so a number is as old as the previous call. Raises
        ``RetriableError`` before the first assignment and after a lost one, when the partitions are unknown.
        """

    def close(self, timeout: float) -> None:
        """Leave the group, after a call of ``revoked``."""


class TopicReader(Protocol):
    """Reads one topic outside any group: commits nothing, affects no other reader. Used by one thread."""

    @property
    def at_end(self) -> bool:
        """Whether everything that the topic held at the reader's creation was returned or has expired."""

    def poll(self, max_records: int, timeout: float) -> list[ConsumedRecord]:
        """Return the next records, waiting at most ``timeout`` seconds for the first.

        Partitions and topics that are created later are read from their beginning. After a
        ``RetriableError`` call again; no record is passed over.
        """

    def close(self, timeout: float) -> None:
        """Close the reader."""


class ExclusiveWriter(Protocol):
    """The only writer of a topic for as long as it is held; see ``Broker.exclusive``."""

    def append(self, records: Sequence[ProducerRecord]) -> None:
        """Append records. All become visible together, when the context ends without an error."""


class Broker(Protocol):
    """Creates producers, consumers and readers, and manages topics and offsets.

    Any thread may use it; producers, consumers and readers belong to one thread each.
    """

    @property
    def cluster_id(self) -> str:
        """The broker's permanent id, the same for every worker."""

    def producer(self, client_id: str, overrides: Mapping[str, str]) -> Producer:
        """Return a new producer. ``overrides``: ``producer.override.*``, which the local log ignores."""

    def consumer(
        self,
        group: str,
        client_id: str,
        overrides: Mapping[str, str],
        producer_overrides: Mapping[str, str] | None = None,
    ) -> Consumer:
        """Return a new group member. ``overrides``: ``consumer.override.*``, which the local log ignores.

        ``producer_overrides``: ``producer.override.*`` of the producer that writes the records of a commit.
        """

    def source_offsets(self, connector: str, timeout: float) -> dict[str, str]:
        """Return the saved source offsets of a connector, as in ``Unit.offsets``."""

    def source_notes(self, connector: str, timeout: float) -> dict[str, str]:
        """Return the notes of the saved source offsets of a connector, of those that have one."""

    @property
    def offsets(self) -> OffsetAdmin:
        """The offsets of stopped connectors, to show and change."""

    def create_topic(
        self,
        name: str,
        *,
        partitions: int = -1,
        replication: int = -1,
        config: Mapping[str, str] | None = None,
        timeout: float = 10.0,
    ) -> bool:
        """Create a topic; -1 means the broker's default. Return ``False`` if it exists."""

    def topics(self, timeout: float = 10.0) -> dict[str, TopicInfo]:
        """Return all topics by name."""

    def topic_names(self, timeout: float = 10.0) -> Collection[str]:
        """Return the names of all topics, with a single request."""

    def read(
        self,
        topic: str,
        visit: Callable[[ConsumedRecord], None],
        *,
        start: Mapping[int, int] | None = None,
        timeout: float = 30.0,
    ) -> dict[int, int]:
        """Visit every committed record of a topic up to its present end.

        Return the next position of each partition. ``start``: where to begin, as an earlier call returned it.
        Raises ``RetriableError`` if the end was not reached within ``timeout``.
        """

    def reader(
        self,
        topic: str,
        *,
        since: int | None = None,
        partitions: Collection[int] | None = None,
        timeout: float = 10.0,
    ) -> TopicReader:
        """Return a reader of a topic, or of some of its partitions, outside any group.

        ``since``, in ms since 1970: start at the first record of each partition with this timestamp or a
        later one; 0 is the beginning. ``None``: read everything that is written after this returns.
        """

    def exclusive(self, topic: str, timeout: float = 10.0) -> AbstractContextManager[ExclusiveWriter]:
        """Become the only writer of a topic: inside the context, read it to its end, then append.

        Kafka holds it with a fenced transactional id, the local log with a lock. If it was taken over
        meanwhile, leaving the context raises ``RetriableError`` and nothing was written.
        """

    def protect(self, groups: Mapping[str, tuple[Sequence[str], str | None]]) -> None:
        """Start retention, which never removes what these groups have not read. Kafka ignores this call.

        ``groups``: name → topics and pattern, as in ``Consumer.subscribe``. A later call replaces them.
        """

    def close(self) -> None:
        """Close everything."""
