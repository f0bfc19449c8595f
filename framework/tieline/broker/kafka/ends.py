"""The ends of partitions, for which the brokers are asked without waiting for the answer."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future
from typing import Any

from tieline.api import TopicPartition

AskEnds = Callable[[Collection[TopicPartition]], Mapping[TopicPartition, "Future[Any]"]]
"""Starts to ask; the ``offset`` of each result is the partition's end."""

_OVERDUE = 2.0  # seconds without an answer, after which an end is unknown


class Ends:
    """The last known end of each partition. Used by one thread.

    The ends that the client caches while fetching are not enough: there is none of a paused partition, and
    the last one stays while the leader is unavailable.
    """

    def __init__(self, ask: AskEnds) -> None:
        self._ask = ask
        self._known: dict[TopicPartition, int | None] = {}
        self._answers: Mapping[TopicPartition, Future[Any]] = {}
        self._asked_at = 0.0

    def look(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int | None]:
        """Return the last answers, and ask again. ``None``: the brokers did not answer.

        A partition that was not asked for before is left out.
        """
        now = time.monotonic()
        for partition, answer in self._answers.items():
            if answer.done():
                self._known[partition] = None if answer.exception() else int(answer.result().offset)
            elif now - self._asked_at > _OVERDUE:
                self._known[partition] = None
        self._known = {p: end for p, end in self._known.items() if p in partitions}
        if all(answer.done() for answer in self._answers.values()):
            self._answers, self._asked_at = self._ask(partitions) if partitions else {}, now
        return dict(self._known)
