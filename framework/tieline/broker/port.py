"""What the runtime asks of a broker; the local log and Kafka both keep this contract.

The unit is (records, offsets), acknowledged as one. tests/contract/broker runs one suite on both homes.

Errors, on every method: ``Retriable`` while the broker is unavailable, ``Denied`` while it refuses what an
operator can allow, ``FatalError`` when waiting will not help. No call blocks longer than its time-out.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from tieline.api import FatalError, Headers, RecordMetadata, TopicPartition
from tieline.broker.offsets import OffsetStore


class UnreadableError(FatalError):
    """What a partition holds at a position cannot be read by this client, however often it is tried."""


class RefusedNowError(ValueError):
    """The cause of a record's ``DataError`` where the broker's present settings or a clock refuse it.

    The same record may be accepted later.
    """


class ProducerRecord(NamedTuple):
    """A record on its way to a topic; ``timestamp`` in ms since 1970 UTC, none: now.

    ``partition`` none: murmur2 of the key, as Kafka's clients; any partition where the key is null.
    """

    topic: str
    value: bytes | None
    key: bytes | None = None
    headers: Headers = ()
    timestamp: int | None = None
    partition: int | None = None


UNREADABLE_HEADERS: Headers = (("tieline.headers.unreadable", None),)
"""What a record has in place of headers that cannot be read: its key and value are good all the same."""


class ConsumedRecord(NamedTuple):
    """A record as a topic holds it. Offsets grow within a partition, and may have holes."""

    topic: str
    partition: int
    offset: int
    value: bytes | None
    key: bytes | None
    headers: Headers
    timestamp: int


class Skipped(NamedTuple):
    """Offsets of a partition that its reader will never be given, from ``first`` to the one before ``end``.

    ``reason``: ``expired`` (removed before they were read), ``recreated`` (of a topic that was deleted and
    made again), ``reset`` (passed over because of ``auto.offset.reset=latest``). An offset may be that of a
    transaction's marker: a log that is gone does not tell.
    """

    partition: TopicPartition
    first: int
    end: int
    reason: str


class TopicInfo(NamedTuple):
    """A topic: its id tells it from a later topic of the same name."""

    name: str
    id: str
    partitions: int


@dataclass(frozen=True, eq=False)
class Unit:
    """Records (perhaps none) and the source offsets that they reach, acknowledged as one.

    ``offsets``: canonical JSON of a source partition → JSON of its source offset; empty for a producer
    without source offsets. The local log makes one transaction of both; Kafka saves them after the
    acknowledgement, when the ledger of the task says so.
    """

    records: Sequence[ProducerRecord]
    connector: str = ""
    offsets: Mapping[str, str] = field(default_factory=dict)


class Delivery(NamedTuple):
    """The outcome of a unit: each record's position, or its ``DataError`` or ``FatalError`` by index."""

    unit: Unit
    metadata: Sequence[RecordMetadata | None]
    failures: Mapping[int, Exception]


class Producer(Protocol):
    """Sends units in order and never gives up on its own. One thread uses one producer."""

    @property
    def in_flight_bytes(self) -> int:
        """Bytes sent and not yet reported by ``poll``; its user bounds them."""

    def send(self, unit: Unit) -> None:
        """Hand over a unit; returns at once. Its end comes from ``poll``, in the order of sending."""

    def poll(self, timeout: float) -> list[Delivery]:
        """The units that have ended, waiting at most ``timeout`` seconds for the first.

        Raises ``Retriable`` when the producer itself broke and its units in flight must be sent again.
        """

    def save_offsets(self, connector: str, offsets: Mapping[str, str], timeout: float) -> None:
        """Store source offsets that the task's ledger calls safe; returns when they are stored.

        Never sets back an offset that came with a later unit.
        """

    def close(self, timeout: float) -> None:
        """Let go; what is not acknowledged within ``timeout`` is abandoned (and not reported)."""


class RebalanceListener(Protocol):
    """Told by ``Consumer.poll`` and ``close``, in the caller's own thread."""

    def assigned(self, partitions: Collection[TopicPartition]) -> None:
        """These were added to what the consumer owns."""

    def revoked(self, partitions: Collection[TopicPartition]) -> None:
        """These will be taken away when this returns; offsets may still be committed."""

    def lost(self, partitions: Collection[TopicPartition]) -> None:
        """These are gone already, and somebody else may own them; commit nothing for them."""


class PartitionChangelog(Protocol):
    """The changelog of one consumed partition, and the only way to write it; see ``Consumer.changelog``.

    Any thread may write, one call at a time: it locks, for at most its time-out.
    """

    @property
    def entries(self) -> Mapping[bytes, bytes]:
        """The latest value of each key when the partition was taken over; unchanged by ``write``."""

    def write(
        self,
        entries: Mapping[bytes, bytes | None],
        records: Sequence[ProducerRecord],
        offset: int | None,
        timeout: float,
    ) -> None:
        """Write entries (none deletes the key), records of other topics and the group's offset, as one.

        ``Retriable``: it may have been written or not; the next call finds that out before it does
        anything, and does nothing more where it is given the same. ``DataError``: nothing was written,
        by index in ``entries`` and then ``records`` (a broker refuses whole batches: what shared one with
        the bad record is named, too). ``Fenced``: this writer is of no use any more, since
        the partition was taken over (or has to be, as far as the broker is concerned); nothing was written.
        """

    def close(self, timeout: float) -> None:
        """Let go; ``write`` raises ``Fenced`` from now on."""


class Consumer(Protocol):
    """A member of a consumer group. One thread uses one consumer.

    A partition starts at the group's committed offset, else at its beginning. Where a topic is deleted and
    made again, its partitions are reported as lost and assigned, and read from their beginning.
    """

    def subscribe(self, topics: Sequence[str], pattern: str | None, listener: RebalanceListener) -> None:
        """Join the group for these topics, or for all whose whole name matches the regular expression."""

    def poll(self, max_records: int, timeout: float) -> list[ConsumedRecord]:
        """The next records, waiting at most ``timeout`` seconds for the first; also keeps the group alive."""

    def pause(self, partitions: Collection[TopicPartition]) -> None:
        """Return nothing from these; ``poll`` may return nothing more of them from now on."""

    def resume(self, partitions: Collection[TopicPartition]) -> None:
        """Return records from these again, from where it stopped."""

    def seek(self, partition: TopicPartition, offset: int) -> None:
        """Go on at this offset, or at the next one there is."""

    def commit(self, offsets: Mapping[TopicPartition, int], timeout: float) -> None:
        """Store the group's offsets (the position after the last record done); returns when they are safe.

        For whoever is about to leave (``revoked``, or no more ``poll``): without an answer it raises
        ``Retriable`` after ``timeout`` seconds, and then every call but ``close`` may wait for the broker.
        """

    def commit_async(self, offsets: Mapping[TopicPartition, int]) -> Future[None]:
        """Begin to store the group's offsets. The future is done when they are safe, or holds why they are
        not (``Retriable``, …); ``poll`` hears of it. Only the last one that was begun is followed.
        """

    def committed(self, partitions: Collection[TopicPartition], timeout: float) -> dict[TopicPartition, int]:
        """The group's stored offsets; a partition without one is left out."""

    def changelog(self, topic: str, partition: TopicPartition, timeout: float) -> PartitionChangelog:
        """Take over the changelog ``topic`` of a partition that is owned; called by ``assigned`` or later.

        The topic is made where there is none, compacted, with as many partitions as the consumed one.
        Whoever took it over before is fenced first, then it is read to its end. Raises ``Retriable``:
        call again, what was read is not read twice.
        """

    def skipped(self) -> list[Skipped]:
        """Return what was passed over since the last call, each range once."""

    def topic_id(self, topic: str) -> str | None:
        """Return the id of the topic whose records ``poll`` has returned last; ``None``: unknown."""

    def lag(self) -> dict[TopicPartition, int | None]:
        """Return how many offsets each owned partition's position is behind its end; returns at once.

        ``None``: unknown, because nothing of the partition was read yet or its leader does not answer. A
        broker is asked for the next call, so a number is as old as the call before. Raises ``Retriable``
        before the first assignment, and after a lost one: which partitions wait is not known then.
        """

    def close(self, timeout: float) -> None:
        """Leave the group: ``revoked`` is told first."""


class TopicReader(Protocol):
    """Reads one topic in no group: nothing is committed, nobody else's reading changes. For one thread."""

    @property
    def at_end(self) -> bool:
        """All that the topic held when this reader was made was returned (or is gone)."""

    def poll(self, max_records: int, timeout: float) -> list[ConsumedRecord]:
        """The next records, waiting at most ``timeout`` seconds for the first.

        Partitions that come later, and a topic that does, are read from their beginning. ``Retriable``:
        the broker is away; call again, nothing is passed over.
        """

    def close(self, timeout: float) -> None:
        """Let go."""


class ExclusiveWriter(Protocol):
    """The only writer of one topic for as long as it is held; see ``Broker.exclusive``."""

    def append(self, records: Sequence[ProducerRecord]) -> None:
        """Write these; they become visible together, when the context ends without an error."""


class Broker(Protocol):
    """One of the two homes. Safe for many threads; what it makes is not."""

    @property
    def cluster_id(self) -> str:
        """The same for ever, on every worker of this broker."""

    def producer(self, client_id: str, overrides: Mapping[str, str]) -> Producer:
        """A new producer; ``overrides`` are ``producer.override.*`` (ignored by the local log)."""

    def consumer(self, group: str, client_id: str, overrides: Mapping[str, str]) -> Consumer:
        """A new member of a group; ``overrides`` are ``consumer.override.*`` (ignored by the local log)."""

    def source_offsets(self, connector: str, timeout: float) -> dict[str, str]:
        """The saved source offsets of a connector, as in ``Unit.offsets``."""

    @property
    def offsets(self) -> OffsetStore:
        """Offsets of stopped connectors, to be seen and changed from outside."""

    def create_topic(
        self,
        name: str,
        *,
        partitions: int = -1,
        replication: int = -1,
        config: Mapping[str, str] | None = None,
        timeout: float = 10.0,
    ) -> bool:
        """Create a topic (-1: the broker's own default); false if it is there already."""

    def topics(self, timeout: float = 10.0) -> dict[str, TopicInfo]:
        """All topics by name."""

    def topic_names(self, timeout: float = 10.0) -> Collection[str]:
        """All topics, asked for in one short question."""

    def read(
        self,
        topic: str,
        visit: Callable[[ConsumedRecord], None],
        *,
        start: Mapping[int, int] | None = None,
        timeout: float = 30.0,
    ) -> dict[int, int]:
        """Visit every record of a topic up to its end as it is now; returns the position after, a partition.

        ``start``: where to begin in each partition (what an earlier call returned). Only committed
        records are seen. Raises ``Retriable`` when the end was not reached within ``timeout``.
        """

    def reader(
        self,
        topic: str,
        *,
        since: int | None = None,
        partitions: Collection[int] | None = None,
        timeout: float = 10.0,
    ) -> TopicReader:
        """Read a topic, perhaps only these of its partitions, in no group.

        ``since``, in ms: from the first record of each partition with this timestamp or a later one
        (0: from the beginning). None: from the end; all that is written after this returns is read.
        """

    def exclusive(self, topic: str, timeout: float = 10.0) -> AbstractContextManager[ExclusiveWriter]:
        """Be the only writer of a topic: read it to its end inside, then append.

        Held by the broker's own means (a fenced transactional id; a lock on the local log). If it was
        taken over meanwhile, leaving the context raises ``Retriable`` and nothing was written.
        """

    def protect(self, groups: Mapping[str, tuple[Sequence[str], str | None]]) -> None:
        """Let retention begin, but never remove what these groups have not read (on Kafka: its own affair).

        ``groups``: name → topics and pattern, as in ``Consumer.subscribe``. A later call replaces them.
        """

    def close(self) -> None:
        """Let go of everything."""
