"""Partitions that have no record at their position, until the brokers say which offsets they hold."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import Future
from typing import Any

from tieline.api import TopicPartition
from tieline.broker.kafka.cluster import Cluster
from tieline.broker.kafka.resets import Reset, reset


class PendingResets:
    """Asks the brokers without waiting for them. Used by one thread."""

    def __init__(self, cluster: Cluster, group: str, policy: str) -> None:
        self._cluster = cluster
        self._group = group
        self._policy = policy
        self._offsets: dict[TopicPartition, int | None] = {}
        self._starts: Mapping[TopicPartition, Future[Any]] = {}
        self._ends: Mapping[TopicPartition, Future[Any]] = {}

    def __bool__(self) -> bool:
        return bool(self._offsets)

    def __contains__(self, partition: TopicPartition) -> bool:
        return partition in self._offsets

    def add(self, partition: TopicPartition, offset: int | None) -> None:
        """Add a partition. ``offset``: where the client found no record; ``None`` if it does not say."""
        self._offsets[partition] = offset

    def discard(self, partition: TopicPartition) -> None:
        """Remove a partition that is not owned any more, or is another one of the same name."""
        self._offsets.pop(partition, None)

    def poll(self, exclude: Collection[tuple[str, int]]) -> set[str]:
        """Return the topics whose answers arrived, else nothing. Ask if no question is open.

        ``exclude``: partitions with records that are handed over first.
        """
        if not self._starts:
            waiting = [partition for partition in self._offsets if partition not in exclude]
            if not waiting:
                return set()
            self._starts, self._ends = self._cluster.starts(waiting), self._cluster.ends(waiting)
        if not all(answer.done() for answer in (*self._starts.values(), *self._ends.values())):
            return set()
        return {partition.topic for partition in self._starts}

    def take_answers(self) -> Mapping[TopicPartition, tuple[Future[Any], Future[Any]]]:
        """Return the answers about each partition's start and end, and allow the next question."""
        answers = {partition: (start, self._ends[partition]) for partition, start in self._starts.items()}
        self._starts, self._ends = {}, {}
        return answers

    def resets(
        self,
        answers: Mapping[TopicPartition, tuple[Future[Any], Future[Any]]],
        positions: Mapping[TopicPartition, int],
    ) -> Iterator[tuple[TopicPartition, Reset]]:
        """Yield where to continue in each partition that still waits and has an answer.

        Raises ``FatalError`` for the policy ``error``.
        """
        for partition, (start, end) in answers.items():
            if partition not in self._offsets or start.exception() or end.exception():
                continue  # gone, or to be asked again
            position = positions.get(partition, self._offsets.pop(partition))
            first, last = start.result().offset, end.result().offset
            yield partition, reset(self._group, partition, position, first, last, self._policy)
