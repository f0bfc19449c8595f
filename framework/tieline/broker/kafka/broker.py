"""The broker interface on Apache Kafka."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager

from tieline.api import RetriableError
from tieline.broker.kafka.changelog import CONFIG as CHANGELOG
from tieline.broker.kafka.changelog import ChangelogServices
from tieline.broker.kafka.cluster import Cluster
from tieline.broker.kafka.commit_records import CommitRecords
from tieline.broker.kafka.consumer import KafkaConsumer
from tieline.broker.kafka.errors import (
    run_in_thread,
)
from tieline.broker.kafka.exclusive import hold_topic
from tieline.broker.kafka.offset_admin import KafkaOffsetAdmin
from tieline.broker.kafka.producer import KafkaProducer
from tieline.broker.kafka.reading import end_of, read_to_end
from tieline.broker.kafka.settings import (
    ClientSettings,
    consumer_settings,
    producer_settings,
)
from tieline.broker.kafka.source_offsets import OffsetsTopic
from tieline.broker.kafka.topic_admin import TopicAdmin
from tieline.broker.kafka.topic_reader import KafkaTopicReader
from tieline.broker.port import ExclusiveWriter
from tieline.broker.records import ConsumedRecord, TopicInfo


class KafkaBroker:
    """A ``Broker`` on Kafka. It can be created while the brokers are unavailable, but not used."""

    def __init__(
        self,
        bootstrap_servers: str,
        client: Mapping[str, str],
        *,
        offsets_topic: str,
        offsets_partitions: int = 25,
        offsets_replication: int = -1,
        call_timeout: float = 10.0,
    ) -> None:
        """``client``: settings for every client (TLS, SASL). Raises ``ConfigError`` for unknown ones.

        ``offsets_topic``: empty if the caller stores no source offsets.

        ``call_timeout``: seconds. No call waits longer, whatever time-out it is given, so that a stopping
        worker is not delayed. ``exclusive`` alone keeps its time-out: if it were cut short, each attempt
        would leave a transaction for the next to end, and none might succeed.
        """
        self._client = {**client, "bootstrap.servers": bootstrap_servers}
        self._call_timeout = call_timeout
        self._offsets_topic = offsets_topic
        self._offsets_layout = (offsets_partitions, offsets_replication)
        self._offsets_topic_exists = False
        self._offsets = OffsetsTopic(offsets_topic, self._read)
        self._topics = TopicAdmin(self._client)
        self._cluster_id = ""
        self._lock = threading.Lock()

    @property
    def cluster_id(self) -> str:
        """The broker's permanent id; see ``Broker.cluster_id``."""
        if not self._cluster_id:
            self._cluster_id = self._topics.cluster_id(self._call_timeout)
        return self._cluster_id

    def producer(self, client_id: str, overrides: Mapping[str, str]) -> KafkaProducer:
        """Return a new producer; see ``Broker.producer``.

        Raises ``ConfigError`` for an override that would break a promise.
        """
        settings = producer_settings(self._client, overrides)
        if self._offsets_topic:
            self._ensure_offsets_topic(self._call_timeout)
        return KafkaProducer({"client.id": client_id, **settings}, self._offsets_topic)

    def consumer(
        self,
        group: str,
        client_id: str,
        overrides: Mapping[str, str],
        producer_overrides: Mapping[str, str] | None = None,
    ) -> KafkaConsumer:
        """Return a new group member; see ``Broker.consumer``.

        Raises ``ConfigError`` for an override that would break a promise.
        """
        records = CommitRecords(
            {"client.id": client_id, **producer_settings(self._client, producer_overrides or {})}
        )
        settings = consumer_settings(self._client, overrides)
        refresh = int(settings.pop("metadata.max.age.ms")) / 1000
        services = ChangelogServices(
            {"client.id": client_id, **producer_settings(self._client, {})},
            self._ensure_changelog,
            self._read_changelog,
        )
        member = {"client.id": client_id, **settings, "group.id": group}
        cluster = Cluster(
            self._topics.client, self._call_timeout, self._names_in_thread, {self._offsets_topic}
        )
        return KafkaConsumer(member, cluster, refresh, services, records)

    def source_offsets(self, connector: str, timeout: float) -> dict[str, str]:
        """Return the saved source offsets of a connector; see ``Broker.source_offsets``."""
        return self._offsets.of(connector, self._limit(timeout))

    def source_notes(self, connector: str, timeout: float) -> dict[str, str]:
        """Return the notes of the saved source offsets; see ``Broker.source_notes``."""
        return self._offsets.notes(connector, self._limit(timeout))

    @property
    def offsets(self) -> KafkaOffsetAdmin:
        """The offsets of stopped connectors; see ``Broker.offsets``."""
        return KafkaOffsetAdmin(
            self._topics.client,
            self._topics.answer,
            self._offsets,
            lambda: self.producer("tieline-offsets", {}),
        )

    def create_topic(
        self,
        name: str,
        *,
        partitions: int = -1,
        replication: int = -1,
        config: Mapping[str, str] | None = None,
        timeout: float = 10.0,
    ) -> bool:
        """Create a topic, or return ``False`` if it exists; see ``Broker.create_topic``."""
        return self._topics.create(name, partitions, replication, config or {}, self._limit(timeout))

    def delete_topic(self, name: str, timeout: float = 10.0) -> bool:
        """Delete a topic. Return ``False`` if it does not exist. It disappears a moment later."""
        return self._topics.delete(name, timeout)

    def topics(self, timeout: float = 10.0) -> dict[str, TopicInfo]:
        """Return all topics by name; see ``Broker.topics``.

        Topics that this client may not describe are left out.
        """
        return self._topics.describe_all(self._limit(timeout))

    def topic_names(self, timeout: float = 10.0) -> Collection[str]:
        """Return the names of all topics; see ``Broker.topic_names``.

        Topics that this client may not describe are included.
        """
        return self._topics.names(self._limit(timeout))

    def read(
        self,
        topic: str,
        visit: Callable[[ConsumedRecord], None],
        *,
        start: Mapping[int, int] | None = None,
        timeout: float = 30.0,
    ) -> dict[int, int]:
        """Visit every record of a topic up to its present end; see ``Broker.read``."""
        return self._read(topic, visit, start or {}, self._limit(timeout))

    def reader(
        self,
        topic: str,
        *,
        since: int | None = None,
        partitions: Collection[int] | None = None,
        timeout: float = 10.0,
    ) -> KafkaTopicReader:
        """Return a reader of a topic outside any group; see ``Broker.reader``."""
        return KafkaTopicReader(self._reader_settings(topic), topic, since, partitions, self._limit(timeout))

    def exclusive(self, topic: str, timeout: float = 10.0) -> AbstractContextManager[ExclusiveWriter]:
        """Become the only writer of a topic; see ``Broker.exclusive``.

        A later holder fences an earlier one.
        """
        return hold_topic(producer_settings(self._client, {}), topic, timeout)

    def protect(self, groups: Mapping[str, tuple[Sequence[str], str | None]]) -> None:
        """Do nothing; see ``Broker.protect``. Kafka's topics have their own retention."""

    def close(self) -> None:
        """Close everything; see ``Broker.close``."""
        # Nothing to do: the admin client's threads end with it.

    def _read(
        self,
        topic: str,
        visit: Callable[[ConsumedRecord], None],
        start: Mapping[int, int],
        timeout: float,
        only: int | None = None,
    ) -> dict[int, int]:
        return read_to_end(self._reader_settings(topic), topic, visit, start, timeout, only)

    def _read_changelog(
        self,
        topic: str,
        visit: Callable[[ConsumedRecord], None],
        start: Mapping[int, int],
        timeout: float,
        partition: int,
    ) -> None:
        """Read a partition completely. An open transaction would hide everything that follows its start."""
        timeout = self._limit(timeout)
        reached = self._read(topic, visit, start, timeout, partition)[partition]
        settings = self._reader_settings(topic) | {"isolation.level": "read_uncommitted"}
        end = end_of(settings, topic, partition, timeout)
        if reached < end:
            raise RetriableError(
                f"{topic}-{partition}: an open transaction hides the offsets from {reached} to {end} "
                "(Kafka's kafka-transactions.sh finds and aborts it)"
            )

    def _reader_settings(self, topic: str) -> ClientSettings:
        settings = consumer_settings(self._client, {}) | {"group.id": f"tieline-read-{topic}"}
        del settings["metadata.max.age.ms"]
        return settings

    def _ensure_changelog(self, topic: str, consumed: str, timeout: float) -> None:
        """Create a changelog with as many partitions as the consumed topic, or add those that it lacks."""
        timeout = self._limit(timeout)
        wanted = self._topics.partitions(consumed, timeout)
        self.create_topic(topic, partitions=wanted, config=CHANGELOG, timeout=timeout)
        if self._topics.partitions(topic, timeout) < wanted:
            self._topics.add_partitions(topic, wanted, timeout)

    def _ensure_offsets_topic(self, timeout: float) -> None:
        if not self._lock.acquire(timeout=timeout):
            raise RetriableError(f"creating the topic {self._offsets_topic}: no answer within {timeout} s")
        try:
            if not self._offsets_topic_exists:
                partitions, replication = self._offsets_layout
                self.create_topic(
                    self._offsets_topic,
                    partitions=partitions,
                    replication=replication,
                    config={"cleanup.policy": "compact"},
                    timeout=timeout,
                )
                self._offsets_topic_exists = True
        finally:
            self._lock.release()

    def _limit(self, timeout: float) -> float:
        return min(timeout, self._call_timeout)

    def _names_in_thread(self) -> Future[Collection[str]]:
        return run_in_thread(lambda: self._topics.names(self._call_timeout), "listing the topics")
