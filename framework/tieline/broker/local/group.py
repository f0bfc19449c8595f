"""Consumer groups within one process, with cooperative rebalancing."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection
from typing import Protocol

from tieline.api import TopicPartition


class Member(Protocol):
    """A consumer, as its group sees it."""

    def wants(self, topic: str) -> bool:
        """Return whether the consumer has subscribed to this topic."""


class Group:
    """Tracks which member owns each partition, and which one should. Any thread may use it.

    A partition goes to its new member only after the old one has released it, in its own ``poll``. A
    partition moves only if it must.
    """

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._lock = threading.Lock()
        self._members: list[Member] = []
        self._partitions: frozenset[TopicPartition] = frozenset()
        self._owner: dict[TopicPartition, Member] = {}
        self._target: dict[TopicPartition, Member] = {}

    def join(self, member: Member) -> None:
        """Add a member, or note its new subscription."""
        with self._lock:
            if member not in self._members:
                self._members.append(member)
            self._assign()

    def leave(self, member: Member) -> None:
        """Remove a member, with everything that it owns."""
        with self._lock:
            if member in self._members:
                self._members.remove(member)
            self._owner = {
                partition: owner for partition, owner in self._owner.items() if owner is not member
            }
            self._assign()

    def update(self, partitions: Collection[TopicPartition]) -> None:
        """Note which partitions exist."""
        with self._lock:
            if self._partitions != frozenset(partitions):
                self._partitions = frozenset(partitions)
                self._assign()

    def to_release(self, member: Member) -> list[TopicPartition]:
        """Return what the member owns and must release."""
        with self._lock:
            owned = [partition for partition, owner in self._owner.items() if owner is member]
            return sorted(partition for partition in owned if self._target.get(partition) is not member)

    def release(self, member: Member, partitions: Collection[TopicPartition]) -> None:
        """Note that the member has released these."""
        with self._lock:
            for partition in partitions:
                if self._owner.get(partition) is member:
                    del self._owner[partition]
        self._changed()

    def claim(self, member: Member) -> list[TopicPartition]:
        """Return the free partitions that the member should own, and make it their owner."""
        with self._lock:
            free = sorted(
                partition
                for partition, target in self._target.items()
                if target is member and partition not in self._owner
            )
            for partition in free:
                self._owner[partition] = member
            return free

    def _assign(self) -> None:
        """Distribute partitions evenly, to within one. A partition moves only to make the loads even."""
        target: dict[TopicPartition, Member] = {}
        load = {id(member): 0 for member in self._members}
        wanted = {
            topic: [member for member in self._members if member.wants(topic)]
            for topic in {partition.topic for partition in self._partitions}
        }
        unassigned = []
        for partition in sorted(self._partitions):
            present = self._owner.get(partition) or self._target.get(partition)
            if present in wanted[partition.topic]:
                target[partition] = present
                load[id(present)] += 1
            elif wanted[partition.topic]:
                unassigned.append(partition)
        for partition in unassigned:
            least = min(wanted[partition.topic], key=lambda member: load[id(member)])
            target[partition] = least
            load[id(least)] += 1
        moved = True
        while moved:
            moved = False
            for partition, member in target.items():
                least = min(wanted[partition.topic], key=lambda other: load[id(other)])
                if load[id(member)] - load[id(least)] > 1:
                    load[id(member)] -= 1
                    load[id(least)] += 1
                    target[partition] = least
                    moved = True
        self._target = target
        self._changed()
