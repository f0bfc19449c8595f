"""Where files begin and end: a function of the records of a partition alone. Pure.

A *segment* begins with a record, and ends before the record that is one too many, too late, or of another
schema. Each file is what a segment has for one folder, and is named by the segment's first offset. So
whoever begins where a segment begins cuts the same segments, and writes the same files again; and a
partition is committed at the beginning of its open segment, never inside one.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from typing import NamedTuple


class Row(NamedTuple):
    """What is cut by. ``time``: milliseconds since 1970; none: it has none and ends nothing by it."""

    offset: int
    time: int | None
    schema: Hashable


class Cut(NamedTuple):
    """The rows ``begin`` to ``end`` of those given belong to one segment; ``first``: they begin it."""

    begin: int
    end: int
    first: bool


class Segment(NamedTuple):
    """An open one: its first offset, how many records it has, the time that it began with, its schema."""

    start: int
    size: int
    time: int | None
    schema: Hashable


class Cutter:
    """``flush_size``: records a segment at most. ``rotate``: milliseconds; -1: no limit."""

    def __init__(self, flush_size: int, rotate: int) -> None:
        self._flush_size = flush_size
        self._rotate = rotate

    def cut(self, segment: Segment | None, rows: Sequence[Row]) -> Iterator[tuple[Cut, Segment]]:
        """The cuts of these rows, which follow what ``segment`` has; each with its segment as it then is.

        A segment that is full (``is_full``) is followed by another one.
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
        """Whether no record can follow; the others end only with what follows them."""
        return segment.size >= self._flush_size

    def _ends_before(self, segment: Segment, row: Row) -> bool:
        if segment.size >= self._flush_size or row.schema != segment.schema:
            return True
        if self._rotate < 0 or row.time is None or segment.time is None:
            return False
        return row.time >= segment.time + self._rotate
