"""The delivery ledger: what is in flight, and which offset is safe to commit. Pure.

A batch makes one entry a partition. An entry is settled when each of its records is delivered,
dead-lettered or filtered. **An offset is safe when its entry and every earlier entry of the same
partition are settled**: the contiguous prefix in the order of dispatch. Arithmetic on offsets would be wrong,
because they have holes. Kafka Connect's ``SubmittedRecords`` keeps the same invariant, a record at a time.

    received = delivered + dead_lettered + filtered + in_flight

``skipped`` is not part of that sum: records that a sink never stores although nothing failed. Each reason
has a counter of the task, ``skipped.<reason>``, and the ledger shows the total:

- The log lost them before the task read them (``skipped.expired``, ``skipped.recreated``). They were never
  received, so they are in no other number.
- The sink has nothing to store for them (``skipped.tombstone``). They were received, and are delivered.

A source uses it with source partitions and source offsets, a sink with topic partitions and the
positions after the last record.
"""

from __future__ import annotations

import operator
from collections import deque
from collections.abc import Hashable, Mapping
from typing import Generic, NamedTuple, TypeVar

from tieline.runtime.task.totals import Ended

P = TypeVar("P", bound=Hashable)
O = TypeVar("O")  # noqa: E741 - an offset of any kind

_NOTHING = Ended()
SKIPPED = "skipped."
"""The names of the counters of skipped records begin with this."""


def skipped(counters: Mapping[str, int]) -> int:
    """Return the total of the counters of skipped records."""
    return sum(number for name, number in counters.items() if name.startswith(SKIPPED))


class Counts(NamedTuple):
    """The ledger's totals since the task started."""

    received: int = 0
    delivered: int = 0
    dead_lettered: int = 0
    filtered: int = 0
    in_flight: int = 0

    def plus(self, other: Counts) -> Counts:
        """Return the sums."""
        return Counts(*map(operator.add, self, other))

    @property
    def settled(self) -> Counts:
        """The totals after the end: what was in flight is received again by the next one."""
        return self._replace(received=self.received - self.in_flight, in_flight=0)


class Entry(Generic[P, O]):
    """The records of one batch and one partition; ``offset`` is the position after them."""

    __slots__ = ("ended", "offset", "outstanding", "partition")

    def __init__(self, partition: P, offset: O, outstanding: int, ended: Ended) -> None:
        self.partition = partition
        self.offset = offset
        self.outstanding = outstanding
        self.ended = ended


class DeliveryLedger(Generic[P, O]):
    """Settles records, and returns safe offsets. Used by one thread; any thread may read ``counts``."""

    def __init__(self) -> None:
        self._entries: dict[P, deque[Entry[P, O]]] = {}
        self._safe: dict[P, O] = {}
        self._ended: dict[P, Ended] = {}
        self._unsafe: dict[P, int] = {}
        self._received = self._delivered = self._dead_lettered = self._filtered = 0

    @property
    def counts(self) -> Counts:
        """The totals; they always add up."""
        delivered, dead, filtered, received = (
            self._delivered,
            self._dead_lettered,
            self._filtered,
            self._received,
        )
        return Counts(received, delivered, dead, filtered, received - delivered - dead - filtered)

    def dispatch(
        self,
        partition: P,
        offset: O,
        count: int,
        filtered: int = 0,
        dead_lettered: int = 0,
        *,
        skipped: int = 0,
    ) -> Entry[P, O]:
        """Enter ``count`` records that are on their way.

        ``filtered`` and ``dead_lettered``: how many of them have ended already. ``skipped``: how many offsets
        before ``offset`` were never received.
        """
        if filtered < 0 or dead_lettered < 0 or filtered + dead_lettered > count:
            raise ValueError(f"{filtered} of {count} records filtered, {dead_lettered} dead-lettered")
        ended = Ended(0, dead_lettered, filtered, skipped)
        entry = Entry(partition, offset, count - filtered - dead_lettered, ended)
        self._received += count
        self._filtered += filtered
        self._dead_lettered += dead_lettered
        self._unsafe[partition] = self._unsafe.get(partition, 0) + count
        self._entries.setdefault(partition, deque()).append(entry)
        self._advance(partition)
        return entry

    def split(
        self, entry: Entry[P, O], offset: O, outstanding: int, ended: Ended | None = None
    ) -> Entry[P, O]:
        """Move its first ``outstanding`` records to an entry of their own, which ends at ``offset``.

        ``ended``: how many of the entry's records that have ended already stand before ``offset``.
        """
        if not 0 <= outstanding <= entry.outstanding:
            raise ValueError(f"{outstanding} records split off {entry.outstanding} outstanding")
        waiting = self._entries[entry.partition]
        first = Entry(entry.partition, offset, outstanding, ended or Ended())
        entry.outstanding -= outstanding
        entry.ended = entry.ended.minus(first.ended)
        waiting.insert(waiting.index(entry), first)
        return first

    def settle(self, entry: Entry[P, O], delivered: int = 0, dead_lettered: int = 0) -> None:
        """Note that so many records of an entry have ended."""
        ended = delivered + dead_lettered
        if delivered < 0 or dead_lettered < 0 or ended > entry.outstanding:
            raise ValueError(f"{ended} records settled of {entry.outstanding} outstanding")
        entry.outstanding -= ended
        entry.ended = entry.ended.plus(Ended(delivered, dead_lettered))
        self._delivered += delivered
        self._dead_lettered += dead_lettered
        if entry.outstanding == 0:
            self._advance(entry.partition)

    def release(self, partition: P) -> int:
        """Drop what is in flight in a partition, since it will be read again; return how many records."""
        self._safe.pop(partition, None)
        self._ended.pop(partition, None)
        self._unsafe.pop(partition, None)
        returned = sum(entry.outstanding for entry in self._entries.pop(partition, ()))
        self._received -= returned
        return returned

    def entries(self, partition: P) -> tuple[Entry[P, O], ...]:
        """Return the entries of a partition that are not settled or wait for an earlier one, oldest first."""
        return tuple(self._entries.get(partition, ()))

    def ended(self, partition: P) -> Ended:
        """Return what the records before the safe offset became since the start or the last ``release``."""
        return self._ended.get(partition, _NOTHING)

    def unsafe(self, partition: P) -> int:
        """Return how many records of a partition stand behind the safe offset."""
        return self._unsafe.get(partition, 0)

    def committable(self) -> dict[P, O]:
        """Return the safe offsets that were not reported as committed yet."""
        return dict(self._safe)

    def committed(self, offsets: Mapping[P, O]) -> None:
        """Note that these offsets, taken from ``committable``, are stored."""
        for partition, offset in offsets.items():
            if partition in self._safe and self._safe[partition] == offset:
                del self._safe[partition]

    def _advance(self, partition: P) -> None:
        waiting = self._entries.get(partition)
        while waiting and waiting[0].outstanding == 0:
            entry = waiting.popleft()
            self._safe[partition] = entry.offset
            self._ended[partition] = self.ended(partition).plus(entry.ended)
            self._unsafe[partition] -= entry.ended.received
        if waiting is not None and not waiting:
            del self._entries[partition]
