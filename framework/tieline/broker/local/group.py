"""Consumer groups of one process, with cooperative handover."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection
from typing import Protocol

from tieline.api import TopicPartition


class Member(Protocol):
    """What a group knows of a consumer."""

    def wants(self, topic: str) -> bool:
        """True if the consumer subscribed to this topic."""


class Group:
    """Who owns which partition, and who shall. Safe for many threads.

    A partition goes to its new member only after the old one has let go (``release``), which it does in
    its own ``poll``: nothing is handed over under a member's hands, and what need not move stays.
    """

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._lock = threading.Lock()
        self._members: list[Member] = []
        self._partitions: frozenset[TopicPartition] = frozenset()
        self._owner: dict[TopicPartition, Member] = {}
        self._target: dict[TopicPartition, Member] = {}

    def join(self, member: Member) -> None:
        """A new member, or a new subscription of one."""
        with self._lock:
            if member not in self._members:
                self._members.append(member)
            self._assign()

    def leave(self, member: Member) -> None:
        """A member is gone, with all that it owned."""
        with self._lock:
            if member in self._members:
                self._members.remove(member)
            self._owner = {at: owner for at, owner in self._owner.items() if owner is not member}
            self._assign()

    def update(self, partitions: Collection[TopicPartition]) -> None:
        """These partitions exist."""
        with self._lock:
            if self._partitions != frozenset(partitions):
                self._partitions = frozenset(partitions)
                self._assign()

    def to_release(self, member: Member) -> list[TopicPartition]:
        """What the member owns and shall not."""
        with self._lock:
            owned = [at for at, owner in self._owner.items() if owner is member]
            return sorted(at for at in owned if self._target.get(at) is not member)

    def release(self, member: Member, partitions: Collection[TopicPartition]) -> None:
        """The member has let go of these."""
        with self._lock:
            for at in partitions:
                if self._owner.get(at) is member:
                    del self._owner[at]
        self._changed()

    def claim(self, member: Member) -> list[TopicPartition]:
        """What the member shall own and nobody does; it owns these now."""
        with self._lock:
            free = sorted(
                at for at, target in self._target.items() if target is member and at not in self._owner
            )
            for at in free:
                self._owner[at] = member
            return free

    def _assign(self) -> None:
        """Even within one, and sticky: a partition moves only for the sake of evenness."""
        target: dict[TopicPartition, Member] = {}
        load = {id(member): 0 for member in self._members}
        wanted = {
            topic: [member for member in self._members if member.wants(topic)]
            for topic in {at.topic for at in self._partitions}
        }
        homeless = []
        for at in sorted(self._partitions):
            keeper = self._owner.get(at) or self._target.get(at)
            if keeper in wanted[at.topic]:
                target[at] = keeper
                load[id(keeper)] += 1
            elif wanted[at.topic]:
                homeless.append(at)
        for at in homeless:
            least = min(wanted[at.topic], key=lambda member: load[id(member)])
            target[at] = least
            load[id(least)] += 1
        moved = True
        while moved:
            moved = False
            for at, member in target.items():
                least = min(wanted[at.topic], key=lambda other: load[id(other)])
                if load[id(member)] - load[id(least)] > 1:
                    load[id(member)] -= 1
                    load[id(least)] += 1
                    target[at] = least
                    moved = True
        self._target = target
        self._changed()
