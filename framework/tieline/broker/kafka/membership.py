"""A consumer's membership in its group: what it subscribed to, what it owns, and what of that is paused."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from confluent_kafka import Consumer as Client
from confluent_kafka import KafkaException
from confluent_kafka import TopicPartition as KafkaPartition

from tieline.api import TopicPartition
from tieline.broker.kafka.codes import Operation
from tieline.broker.kafka.errors import to_tieline_error
from tieline.broker.kafka.partitions import from_kafka, to_kafka
from tieline.broker.port import RebalanceListener


class Membership:
    """Follows the rebalances of one client. Used by the thread of its consumer.

    The client calls ``on_assign``, ``on_revoke`` and ``on_lost`` inside its own poll.
    """

    def __init__(
        self, client: Client, group: str, drop: Callable[[Collection[TopicPartition]], None]
    ) -> None:
        """``drop`` forgets what its consumer knows of partitions that are not owned any more."""
        self._client = client
        self._group = group
        self._drop = drop
        self._subscribed: frozenset[str] = frozenset()
        self.listener: RebalanceListener | None = None
        self.owned: set[TopicPartition] = set()
        self.paused: set[TopicPartition] = set()
        self.assigned = False
        """Whether partitions, perhaps none, were assigned since the consumer joined or lost what it had."""
        self.rebalancing = False
        """Whether a callback of the client is running."""
        self.left: set[TopicPartition] = set()
        """What was taken from the consumer since it last cleared this."""
        self.metadata: Any = None
        """The member id and generation at the last poll; ``None`` until ``follow_metadata``."""
        self._follows_metadata = False

    def subscribe(self, topics: frozenset[str]) -> None:
        """Join the group for these topics, unless there are none, or they are the same as before."""
        if not topics or topics == self._subscribed:
            return
        self._subscribed = topics
        try:
            self._client.subscribe(
                sorted(topics), on_assign=self.on_assign, on_revoke=self.on_revoke, on_lost=self.on_lost
            )
        except KafkaException as error:
            raise to_tieline_error(error, f"group {self._group}: subscribing", Operation.METADATA) from error

    def follow_metadata(self) -> None:
        """Keep ``metadata`` for changelogs: on their threads the client would wait for a poll to end."""
        self._follows_metadata = True
        self.update_metadata()

    def update_metadata(self) -> None:
        """Note the member id and generation now, if a changelog needs them."""
        if self._follows_metadata:
            self.metadata = self._client.consumer_group_metadata()

    def pause(self, partitions: Collection[TopicPartition]) -> None:
        """Fetch nothing from those of these partitions that are owned."""
        flowing = (self.owned & set(partitions)) - self.paused
        self.paused |= flowing
        self._client.pause(to_kafka(flowing))

    def resume(self, partitions: Collection[TopicPartition]) -> None:
        """Fetch again from those of these partitions that are paused."""
        paused = self.paused & set(partitions)
        self.paused -= paused
        self._client.resume(to_kafka(paused))

    def go_to(self, partition: TopicPartition, offset: int) -> None:
        """Fetch from another offset. The client's seek has no time-out, and fails before a first fetch."""
        self._client.incremental_unassign(to_kafka([partition]))
        self._client.incremental_assign([KafkaPartition(*partition, offset)])
        if partition in self.paused:
            self._client.pause(to_kafka([partition]))

    def replace(
        self,
        listener: RebalanceListener,
        partitions: Collection[TopicPartition],
        prepare: Callable[[], None] | None = None,
    ) -> None:
        """Report these as lost and assigned: another topic of the same name has replaced theirs.

        ``prepare`` runs between the two.
        """
        listener.lost(sorted(partitions))
        self.resume(partitions)
        if prepare is not None:
            prepare()
        listener.assigned(sorted(partitions))

    def leave(self) -> None:
        """Report everything that is owned as revoked, and own nothing any more."""
        try:
            if self.listener is not None and self.owned:
                self.listener.revoked(sorted(self.owned))
        finally:
            self.listener = None
            self.owned.clear()

    def on_assign(self, _client: object, partitions: list[KafkaPartition]) -> None:
        """Take over partitions."""
        # The client keeps a pause beyond the assignment in which it was made.
        self._client.resume(
            [KafkaPartition(partition.topic, partition.partition) for partition in partitions]
        )
        self._client.incremental_assign(partitions)
        coming = from_kafka(partitions)
        self.owned.update(coming)
        self.assigned = True
        self.rebalancing = True
        try:
            if self.listener is not None and coming:
                self.listener.assigned(coming)
        finally:
            self.rebalancing = False

    def on_revoke(self, _client: object, partitions: list[KafkaPartition]) -> None:
        """Give partitions up; their offsets may be committed before."""
        going = [partition for partition in from_kafka(partitions) if partition in self.owned]
        self.left.update(going)
        self.rebalancing = True
        try:
            if self.listener is not None and going:
                self.listener.revoked(going)
        finally:
            self._release(going, partitions)

    def on_lost(self, _client: object, partitions: list[KafkaPartition]) -> None:
        """Forget partitions that another member may own already."""
        going = [partition for partition in from_kafka(partitions) if partition in self.owned]
        self.left.update(going)
        self.rebalancing = True
        try:
            if self.listener is not None and going:
                self.assigned = False
                self.owned.difference_update(going)
                self.listener.lost(going)
        finally:
            self._release(going, partitions)

    def _release(self, going: Collection[TopicPartition], partitions: list[KafkaPartition]) -> None:
        self.rebalancing = False
        self.owned.difference_update(going)
        self.paused.difference_update(going)
        self._drop(going)
        self._client.incremental_unassign(partitions)
