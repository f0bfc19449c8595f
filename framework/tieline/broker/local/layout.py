"""How topics, partitions and records are laid out in a log file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from tieline.api import RecordMetadata

OFFSET_BITS = 40
OFFSET_MASK = (1 << OFFSET_BITS) - 1
SIZE = "coalesce(length(key), 0) + coalesce(length(value), 0) + coalesce(length(headers), 0)"
LEGAL_TOPIC = re.compile(r"(?!\.{1,2}\Z)[a-zA-Z0-9._-]{1,249}\Z")  # Kafka's rule


class Appended(NamedTuple):
    """Where the records went; the index of each that cannot be written → why."""

    metadata: list[RecordMetadata | None]
    failures: dict[int, Exception]


class Removed(NamedTuple):
    """What a deletion took away, and where the partition starts now."""

    records: int
    bytes: int
    start: int


@dataclass(slots=True)
class Partition:
    """A partition as the open transaction sees it."""

    id: int
    number: int
    start: int
    next: int
    records: int
    bytes: int


@dataclass(slots=True)
class Topic:
    """A topic as the open transaction sees it."""

    name: str
    number: int
    id: str
    config: Mapping[str, str]
    partitions: list[Partition] = field(default_factory=list)
    turn: int = 0

    def setting(self, key: str, default: int) -> int:
        """A number of the topic's configuration."""
        try:
            return int(self.config.get(key, default))
        except ValueError:
            return default
