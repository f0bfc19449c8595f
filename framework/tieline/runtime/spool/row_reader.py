"""Reads the raw rows of a spool, one by one if the file is damaged.

The rows of a spool have consecutive sequence numbers from its start to its end. A row that is missing, or
whose number does not fit its place, was changed by the disk.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

from tieline.api import FatalError, TopicPartition
from tieline.broker.local.reader import Bounds, RawRow
from tieline.broker.local.store import Store


class Rows(NamedTuple):
    """The rows that were found, the numbers of those that were not, and the position after all of them."""

    rows: Sequence[RawRow]
    lost: Sequence[int]
    position: int


def read_rows(store: Store, partition: TopicPartition, position: int, max_records: int) -> Rows:
    """Return the rows at and after a position.

    Raises ``RetriableError``, and ``FatalError`` if the file is damaged beyond one row.
    """
    bounds = store.snapshot()[partition]
    position = max(position, bounds.start)
    if position >= bounds.end:
        return Rows((), (), position)
    rows: Sequence[RawRow] = ()
    with suppress(FatalError):  # each row is read below
        rows = store.read_raw(bounds, position, bounds.end, max_records)
    after = position + len(rows)
    if rows and [row.offset for row in rows] == list(range(position, after)):
        return Rows(rows, (), after)
    return _read_each(store, bounds, range(position, min(position + max_records, bounds.end)))


def _read_each(store: Store, bounds: Bounds, numbers: Sequence[int]) -> Rows:
    """Scan the whole file, since a wrong number misleads SQLite's search; then look up missing rows.

    Rows are stored in order. If as many as expected are found, a wrong number among them does no harm.
    """
    after = numbers[-1] + 1
    rows: list[RawRow] = []
    with suppress(FatalError):  # this finds no row behind a damaged one
        rows = store.read_raw(bounds, numbers[0], after, len(numbers), search=False)
    if len(rows) == len(numbers):
        return Rows([row._replace(offset=n) for row, n in zip(rows, numbers, strict=True)], (), after)
    by_number = {row.offset: row for row in rows}
    damaged = 0
    for number in numbers:
        if number not in by_number:
            try:
                for row in store.read_raw(bounds, number, number + 1, 1):
                    by_number[number] = row
            except FatalError:
                damaged += 1
                if damaged > 1:  # more than a record: SQLite's own structure
                    raise
    return Rows([by_number[n] for n in sorted(by_number)], [n for n in numbers if n not in by_number], after)
