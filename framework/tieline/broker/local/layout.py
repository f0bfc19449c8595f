"""How records are laid out in a log file, and what a change of it returns."""

from __future__ import annotations

from typing import NamedTuple

from tieline.api import RecordMetadata

OFFSET_BITS = 40
OFFSET_MASK = (1 << OFFSET_BITS) - 1
SIZE = "coalesce(length(key), 0) + coalesce(length(value), 0) + coalesce(length(headers), 0)"


class Appended(NamedTuple):
    """The positions of appended records, and by index why each of the others cannot be written."""

    metadata: list[RecordMetadata | None]
    failures: dict[int, Exception]


class Removed(NamedTuple):
    """What was removed, and where the partition starts now."""

    records: int
    bytes: int
    start: int
