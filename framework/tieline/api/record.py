"""Records, as light as Python allows: a named tuple each, handled in batches.

A value is plain Python data (None, bool, int, float, str, bytes, list, dict), with the Avro schema it
is true to, or none. Transforms and converters keep the two true to each other.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, TypeAlias, TypeVar

from tieline.api.schema import Schema

Primitive: TypeAlias = "str | int | float | bool | None"
Position: TypeAlias = "Mapping[str, Primitive]"
"""A source partition or a source offset: string keys and JSON primitives, as in Kafka Connect."""

Headers: TypeAlias = "tuple[tuple[str, bytes | None], ...]"
"""In order, keys may repeat: what Kafka carries."""

ID_HEADER = "tieline.id"
DIGEST_HEADER = "tieline.digest"


class TopicPartition(NamedTuple):
    """One partition of a topic."""

    topic: str
    partition: int


class SourceRecord(NamedTuple):
    """What a source task hands over.

    ``timestamp`` is in milliseconds since 1970, UTC; none: when it is written. A sink is given it as it is,
    however old (docs/decisions/timestamps-near-now.md tells what the broker is given). ``partition`` none
    leaves the choice to the key (murmur2, as every Kafka client). ``source_offset`` is where to go on after
    this record.
    """

    topic: str
    value: Any
    key: Any = None
    source_partition: Position = {}
    source_offset: Position = {}
    headers: Headers = ()
    timestamp: int | None = None
    partition: int | None = None
    value_schema: Schema | None = None
    key_schema: Schema | None = None


class Unreadable(NamedTuple):
    """The value of a record that no converter can read: its bytes, and why."""

    value: bytes | None
    error: Exception


class SinkRecord(NamedTuple):
    """What a sink task is given; ``headers`` always hold the record's id and digest.

    ``topic`` is the transforms' to change. ``original_topic`` is where it was consumed (KIP-793), none: from
    ``topic``. Offsets, assignments and errors speak of that one: ``consumed_from``.
    """

    topic: str
    partition: int
    offset: int
    value: Any
    key: Any = None
    headers: Headers = ()
    timestamp: int | None = None
    value_schema: Schema | None = None
    key_schema: Schema | None = None
    original_topic: str | None = None

    @property
    def consumed_from(self) -> TopicPartition:
        """The partition in which ``offset`` counts; what ``pre_commit``, ``Retriable`` and ``open`` name."""
        return TopicPartition(self.original_topic or self.topic, self.partition)


AnyRecord = TypeVar("AnyRecord", SourceRecord, SinkRecord)
R = TypeVar("R", bound=tuple[Any, ...])


def rows(kind: type[R], *columns: Iterable[Any]) -> list[R]:
    """Named tuples from their columns, all of them given; at half the price of calling ``kind``.

    A named tuple's own constructor is a Python function; this is one loop in C over the batch.
    """
    make: Callable[[tuple[Any, ...]], R] = functools.partial(tuple.__new__, kind)
    return list(map(make, zip(*columns, strict=True)))


class RecordMetadata(NamedTuple):
    """Where the broker put a record."""

    topic: str
    partition: int
    offset: int


def header(record: SourceRecord | SinkRecord, key: str) -> bytes | None:
    """The last header called ``key`` (Kafka's ``lastHeader``), or none."""
    for name, value in reversed(record.headers):
        if name == key:
            return value
    return None


def identity(*parts: str | bytes | int, digest_of: bytes = b"") -> Headers:
    """The two headers that make a record the same record on every redelivery.

    Called once, where the record is made, by a source whose records have an identity of their own.
    ``parts`` are hashed to the id (BLAKE2b-128, each part with its length before it, so that no two
    lists of parts read the same); ``digest_of`` is the content that two records of that id must share.
    A store that meets a known id with another digest reports a data error.
    """
    hashed = hashlib.blake2b(digest_size=16)
    for part in parts:
        raw = part if isinstance(part, bytes) else str(part).encode("utf-8", "surrogatepass")
        hashed.update(b"%d:%b" % (len(raw), raw))
    return (
        (ID_HEADER, hashed.hexdigest().encode()),
        (DIGEST_HEADER, hashlib.blake2b(digest_of, digest_size=16).hexdigest().encode()),
    )
