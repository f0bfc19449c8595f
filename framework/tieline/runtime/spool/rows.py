"""Reads the spool's rows as they lie in the file, none of them decoded; each by itself where the file is
not what it should be.

The rows of a spool have consecutive sequence numbers, from its start to its end. A row that is missing, or
that has another number than its place, is one that the disk has changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

from tieline.api import FatalError, TopicPartition
from tieline.broker.local.reader import Bounds, RawRow
from tieline.broker.local.store import Store


class Taken(NamedTuple):
    """The rows that were found, the numbers of those that were not, and the position after all of them."""

    rows: Sequence[RawRow]
    lost: Sequence[int]
    position: int


def take(store: Store, at: TopicPartition, position: int, max_records: int) -> Taken:
    """The rows at and after a position.

    Raises ``Retriable``, and ``FatalError`` if the file is damaged beyond one row.
    """
    bounds = store.snapshot()[at]
    position = max(position, bounds.start)
    if position >= bounds.end:
        return Taken((), (), position)
    rows: Sequence[RawRow] = ()
    with suppress(FatalError):  # looked at closer below
        rows = store.read_raw(bounds, position, bounds.end, max_records)
    after = position + len(rows)
    if rows and [row.offset for row in rows] == list(range(position, after)):
        return Taken(rows, (), after)
    return _each(store, bounds, range(position, min(position + max_records, bounds.end)))


def _each(store: Store, bounds: Bounds, numbers: Sequence[int]) -> Taken:
    """Read the whole file, since a wrong number misleads SQLite's search; then look up what is missing.

    Rows lie in their order. If as many as expected are found, a wrong number among them does no harm.
    """
    after = numbers[-1] + 1
    rows: list[RawRow] = []
    with suppress(FatalError):  # no row behind a damaged one is found so
        rows = store.read_raw(bounds, numbers[0], after, len(numbers), search=False)
    if len(rows) == len(numbers):
        return Taken([row._replace(offset=n) for row, n in zip(rows, numbers, strict=True)], (), after)
    found = {row.offset: row for row in rows}
    damaged = 0
    for number in numbers:
        if number not in found:
            try:
                for row in store.read_raw(bounds, number, number + 1, 1):
                    found[number] = row
            except FatalError:
                damaged += 1
                if damaged > 1:  # more than a record: SQLite's own structure
                    raise
    return Taken([found[n] for n in sorted(found)], [n for n in numbers if n not in found], after)
