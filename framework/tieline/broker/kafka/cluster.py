"""Questions of a consumer to the cluster, beside its own client. No call waits for the answer."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from confluent_kafka import IsolationLevel, TopicCollection
from confluent_kafka import TopicPartition as KafkaPartition
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]

from tieline.api import TopicPartition


@dataclass(frozen=True)
class Cluster:
    """The admin client of a broker. Each future ends within ``timeout`` seconds."""

    admin: AdminClient
    timeout: float
    topic_names: Callable[[], Future[Collection[str]]]
    internal: Collection[str] = ()
    """The topics that this worker keeps for itself."""

    def ends(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, Future[Any]]:
        """Ask for the end of each partition: the ``offset`` of the result."""
        return self._offsets(partitions, OffsetSpec.latest())  # type: ignore[no-untyped-call]

    def starts(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, Future[Any]]:
        """Ask for the first offset of each partition: the ``offset`` of the result."""
        return self._offsets(partitions, OffsetSpec.earliest())  # type: ignore[no-untyped-call]

    def descriptions(self, names: Collection[str]) -> Mapping[str, Future[Any]]:
        """Ask for the description of each topic: its id is ``str(result.topic_id)``."""
        answers: Mapping[str, Future[Any]] = self.admin.describe_topics(
            TopicCollection(list(names)), request_timeout=self.timeout
        )
        return answers

    def _offsets(
        self, partitions: Collection[TopicPartition], spec: OffsetSpec
    ) -> Mapping[TopicPartition, Future[Any]]:
        wanted = {KafkaPartition(*partition): spec for partition in partitions}
        futures = self.admin.list_offsets(
            wanted, isolation_level=IsolationLevel.READ_COMMITTED, request_timeout=self.timeout
        )
        return {TopicPartition(p.topic, p.partition): future for p, future in futures.items()}
