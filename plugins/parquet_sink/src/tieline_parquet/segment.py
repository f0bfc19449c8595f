"""Cuts the records of a partition into segments, which depend on these records alone; pure.

A *segment* ends before a record that exceeds its size, that is too late, or that has another schema. Each
file has the rows of a segment for one folder, and its name has the segment's first offset. A task that
starts at the first record of a segment therefore cuts the same segments and writes the same files. A
partition is committed at the first record of its open segment, never inside one.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from typing import NamedTuple


class Row(NamedTuple):
    """What decides about a cut. ``time`` is in milliseconds since 1970; ``None`` causes no cut."""

    offset: int
    time: int | None
    schema: Hashable


class Cut(NamedTuple):
    """The rows ``begin`` to ``end`` belong to one segment; ``first`` says that they are its first rows."""

    begin: int
    end: int
    first: bool


class Segment(NamedTuple):
    """An open segment: its first offset, number of records, first time, and schema."""

    start: int
    size: int
    time: int | None
    schema: Hashable


class Cutter:
    """Cuts at ``flush_size`` records, and after ``rotate`` milliseconds unless that is -1."""

    def __init__(self, flush_size: int, rotate: int) -> None:
        self._flush_size = flush_size
        self._rotate = rotate

    def cut(self, segment: Segment | None, rows: Sequence[Row]) -> Iterator[tuple[Cut, Segment]]:
        """Yield the cuts of the rows that follow ``segment``, each with the state of its segment.

        A new segment follows one that is full.
        """
        begin, first = 0, segment is None or self.is_full(segment)
        if first:
            segment = None
        for index, row in enumerate(rows):
            if segment is not None and self._ends_before(segment, row):
                if index > begin:
                    yield Cut(begin, index, first), segment
                begin, first, segment = index, True, None
            if segment is None:
                segment = Segment(row.offset, 1, row.time, row.schema)
            else:
                time = row.time if segment.time is None else segment.time
                segment = segment._replace(size=segment.size + 1, time=time)
        if segment is not None and len(rows) > begin:
            yield Cut(begin, len(rows), first), segment

    def is_full(self, segment: Segment) -> bool:
        """Return whether no record can follow. Other segments end only at the next record."""
        return segment.size >= self._flush_size

    def _ends_before(self, segment: Segment, row: Row) -> bool:
        if segment.size >= self._flush_size or row.schema != segment.schema:
            return True
        if self._rotate < 0 or row.time is None or segment.time is None:
            return False
        return row.time >= segment.time + self._rotate
