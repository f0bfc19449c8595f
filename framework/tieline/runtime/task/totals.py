"""What a partition's records became since counting began: totals that travel with the committed offset. Pure.

    received = delivered + dead_lettered + filtered

holds at every offset. The totals are the note of the commit of their offset, so that they are stored or lost
with it: after kill -9 the records that are read again were not counted yet.
"""

from __future__ import annotations

import json
import operator
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from tieline.api import TopicPartition

_VERSION = 1
_KEYS = ("since", "first", "received", "delivered", "dead_lettered", "filtered", "skipped")
_LARGEST = 1 << 63
_SHOWN = ("received", "delivered", "dead_lettered", "filtered", "in_flight", "skipped", "mismatch")


class Ended(NamedTuple):
    """How many records ended in which way. ``skipped`` counts offsets whose records were never received."""

    delivered: int = 0
    dead_lettered: int = 0
    filtered: int = 0
    skipped: int = 0

    @property
    def received(self) -> int:
        """How many records that is."""
        return self.delivered + self.dead_lettered + self.filtered

    def plus(self, other: Ended) -> Ended:
        """Return the sums."""
        return Ended(*map(operator.add, self, other))

    def minus(self, other: Ended) -> Ended:
        """Return the differences."""
        return Ended(*map(operator.sub, self, other))


class Totals(NamedTuple):
    """The totals before an offset. ``since``: when counting began, in ms since 1970.

    ``first``: the offset at which counting began. ``received`` is stored beside its parts, so that a changed
    number is noticed.
    """

    since: int
    first: int
    received: int = 0
    delivered: int = 0
    dead_lettered: int = 0
    filtered: int = 0
    skipped: int = 0

    def plus(self, ended: Ended) -> Totals:
        """Return the totals after more records have ended."""
        return Totals(
            self.since,
            self.first,
            self.received + ended.received,
            self.delivered + ended.delivered,
            self.dead_lettered + ended.dead_lettered,
            self.filtered + ended.filtered,
            self.skipped + ended.skipped,
        )

    def mismatch(self, offset: int, *, gapless: bool) -> int:
        """Return how many records the totals and the broker's offset differ by; 0 if they agree.

        ``gapless``: every offset is a record. Otherwise only too many counted records show an error: markers
        of transactions and compaction leave offsets without a record.
        """
        surplus = self.received + self.skipped - (offset - self.first)
        return max(self.inner_mismatch, abs(surplus) if gapless else surplus, 0)

    @property
    def inner_mismatch(self) -> int:
        """By how many records the parts differ from ``received``; 0 if they add up."""
        return abs(self.received - self.delivered - self.dead_lettered - self.filtered)


class PartitionView(NamedTuple):
    """The totals of a partition's committed records, and how many records were read and are not committed.

    ``offset``: the committed one, ``None`` before the first commit, and of a source. ``mismatch``: by how
    many records the totals differ from the offset, or from their own sum.
    """

    totals: Totals
    offset: int | None
    in_flight: int
    mismatch: int

    @property
    def reached(self) -> tuple[int, int]:
        """How far it is, to compare the views that two tasks have of a partition."""
        return self.offset or -1, self.totals.received + self.in_flight


def encode_note(totals: Totals) -> str:
    """Return the totals as the note of a commit."""
    return json.dumps({"tieline": _VERSION, **totals._asdict()}, separators=(",", ":"))


def decode_note(note: str) -> Totals | None:
    """Return the totals of a note; ``None`` if it is not one of ours, or of a version that we cannot read."""
    try:
        content = json.loads(note)
    except (ValueError, RecursionError):
        return None
    if not isinstance(content, dict) or content.get("tieline") != _VERSION:
        return None
    numbers = [content.get(key) for key in _KEYS]
    if not all(type(number) is int and 0 <= number < _LARGEST for number in numbers):
        return None
    return Totals(*numbers)  # type: ignore[arg-type]  # checked above


def describe(view: PartitionView) -> dict[str, int]:
    """Return the numbers of a partition, which add up: received = delivered + … + in_flight.

    ``since``: when counting began, in ms since 1970. ``skipped`` is not part of the sum. ``mismatch``: by how
    many records the totals differ from the offset.
    """
    totals, _, in_flight, mismatch = view
    return {
        "since": totals.since,
        "received": totals.delivered + totals.dead_lettered + totals.filtered + in_flight,
        "delivered": totals.delivered,
        "dead_lettered": totals.dead_lettered,
        "filtered": totals.filtered,
        "in_flight": in_flight,
        "skipped": totals.skipped,
        "mismatch": mismatch,
    }


def summarize(views: Mapping[TopicPartition, PartitionView]) -> dict[str, dict[str, int]]:
    """Return the numbers of each topic, as ``describe`` does."""
    topics: dict[str, list[dict[str, int]]] = {}
    for partition, view in sorted(views.items()):
        topics.setdefault(partition.topic, []).append(describe(view))
    return {topic: add_up(rows) for topic, rows in topics.items()}


def add_up(topics: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Return the sums of such numbers, and the earliest ``since``."""
    rows = list(topics)
    sums = {key: sum(row[key] for row in rows) for key in _SHOWN}
    return {"since": min(row["since"] for row in rows), **sums} if rows else sums
