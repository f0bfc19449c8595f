"""What passes through the broker interface: records, units and their outcomes, skipped ranges, topics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from tieline.api import Headers, RecordMetadata, TopicPartition


class ProducerRecord(NamedTuple):
    """A record to write. ``timestamp`` is in ms since 1970 UTC; ``None`` means the time of writing.

    If ``partition`` is ``None``, murmur2 of the key chooses it, as in Kafka's clients; without a key, it is
    any.
    """

    topic: str
    value: bytes | None
    key: bytes | None = None
    headers: Headers = ()
    timestamp: int | None = None
    partition: int | None = None


UNREADABLE_HEADERS: Headers = (("tieline.headers.unreadable", None),)
"""Stands in for headers that cannot be read. Key and value of such a record are intact."""


class ConsumedRecord(NamedTuple):
    """A record of a topic. Offsets grow within a partition, with possible gaps."""

    topic: str
    partition: int
    offset: int
    value: bytes | None
    key: bytes | None
    headers: Headers
    timestamp: int


class Skipped(NamedTuple):
    """Offsets of a partition that its reader never receives, from ``first`` to the one before ``end``.

    ``reason``: ``expired`` (removed before they were read), ``recreated`` (of a topic that was deleted and
    recreated), ``reset`` (skipped because of ``auto.offset.reset=latest``). Some may have been markers of
    transactions, not records; of a deleted log this is unknown.
    """

    partition: TopicPartition
    first: int
    end: int
    reason: str


class Committed(NamedTuple):
    """A group's committed offset of a partition, and the note that came with it; empty without one."""

    offset: int
    note: str = ""


class TopicInfo(NamedTuple):
    """A topic. Its id differs from that of a later topic of the same name."""

    name: str
    id: str
    partitions: int


@dataclass(frozen=True, eq=False)
class Unit:
    """Records, perhaps none, and the source offsets that they reach, acknowledged together.

    ``offsets``: canonical JSON of a source partition → JSON of its source offset; empty without source
    offsets. ``notes``: a short text for a source partition, stored with its offset. The local log writes all
    in one transaction. On Kafka the offsets are saved after the acknowledgement, when the task's delivery
    ledger calls them safe; the notes of the unit are not used then.
    """

    records: Sequence[ProducerRecord]
    connector: str = ""
    offsets: Mapping[str, str] = field(default_factory=dict)
    notes: Mapping[str, str] = field(default_factory=dict)


class Delivery(NamedTuple):
    """The outcome of a unit: each record's position, or its ``DataError`` or ``FatalError`` by index."""

    unit: Unit
    metadata: Sequence[RecordMetadata | None]
    failures: Mapping[int, Exception]
