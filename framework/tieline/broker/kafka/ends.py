"""The ends of partitions, asked of the brokers without waiting for the answer."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future
from typing import Any

from tieline.api import TopicPartition

AskEnds = Callable[[Collection[TopicPartition]], Mapping[TopicPartition, "Future[Any]"]]
"""Begins to ask: the ``offset`` of each result is the partition's end."""

_OVERDUE = 2.0  # seconds without an answer, after which an end is unknown


class Ends:
    """The last known end of each partition. Used by one thread.

    What the client caches of its own fetching is not enough: it says nothing of a paused partition, and goes
    on saying the same while the leader is away.
    """

    def __init__(self, ask: AskEnds) -> None:
        self._ask = ask
        self._known: dict[TopicPartition, int | None] = {}
        self._asked: Mapping[TopicPartition, Future[Any]] = {}
        self._since = 0.0

    def look(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int | None]:
        """Return what the last answer said and ask again. ``None``: the brokers gave no answer.

        A partition that was never asked for before is left out.
        """
        now = time.monotonic()
        for at, answer in self._asked.items():
            if answer.done():
                self._known[at] = None if answer.exception() else int(answer.result().offset)
            elif now - self._since > _OVERDUE:
                self._known[at] = None
        self._known = {at: end for at, end in self._known.items() if at in partitions}
        if all(answer.done() for answer in self._asked.values()):
            self._asked, self._since = self._ask(partitions) if partitions else {}, now
        return dict(self._known)
