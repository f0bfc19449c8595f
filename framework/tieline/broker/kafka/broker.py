"""The broker port on Apache Kafka."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import AbstractContextManager
from typing import Any, TypeVar

from confluent_kafka import IsolationLevel, KafkaError, KafkaException, TopicCollection
from confluent_kafka import TopicPartition as KafkaPartition
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]
from confluent_kafka.cimpl import NewPartitions, NewTopic

from tieline.api import FatalError, RetriableError
from tieline.broker.kafka.changelog import CONFIG as CHANGELOG
from tieline.broker.kafka.changelog import ChangelogServices
from tieline.broker.kafka.cluster import Cluster
from tieline.broker.kafka.codes import Operation
from tieline.broker.kafka.consumer import KafkaConsumer
from tieline.broker.kafka.errors import run_in_thread, to_tieline_error
from tieline.broker.kafka.exclusive import hold_topic
from tieline.broker.kafka.handshake import handshakes
from tieline.broker.kafka.offset_store import KafkaOffsetStore
from tieline.broker.kafka.offsets import OffsetsTopic
from tieline.broker.kafka.producer import KafkaProducer
from tieline.broker.kafka.reading import read_to_end
from tieline.broker.kafka.settings import consumer_settings, create_client, log, producer_settings
from tieline.broker.kafka.topic_reader import KafkaTopicReader
from tieline.broker.port import ConsumedRecord, ExclusiveWriter, TopicInfo

T = TypeVar("T")


class KafkaBroker:
    """A ``Broker`` on Kafka. Making one does not need the brokers to be there; using it does."""

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

        ``offsets_topic``: empty for who saves no source offsets.

        ``call_timeout``: seconds; no call waits longer, whatever time-out it is given, so that who was
        asked to stop can. All but ``exclusive``: a transaction cut short leaves one for the next to end,
        and the next may never come to its end either.
        """
        self._client = {**client, "bootstrap.servers": bootstrap_servers}
        self._call_timeout = call_timeout
        self._offsets_topic = offsets_topic
        self._offsets_layout = (offsets_partitions, offsets_replication)
        self._offsets_topic_exists = False
        self._offsets = OffsetsTopic(offsets_topic, self._read)
        self._refused: FatalError | None = None
        own = {"logger": log, "error_cb": self._client_error}
        self._admin = create_client(AdminClient, {**self._client, **own}, "")
        self._cluster_id = ""
        self._lock = threading.Lock()

    @property
    def cluster_id(self) -> str:
        """See ``Broker.cluster_id``."""
        if not self._cluster_id:
            timeout = self._call_timeout
            asked = self._admin.describe_cluster(request_timeout=timeout)
            found = self._answer(asked, "the cluster's id", timeout)
            self._cluster_id = str(found.cluster_id)
        return self._cluster_id

    def producer(self, client_id: str, overrides: Mapping[str, str]) -> KafkaProducer:
        """See ``Broker.producer``. Raises ``ConfigError`` for an override that would break a promise."""
        settings = producer_settings(self._client, overrides)
        if self._offsets_topic:
            self._ensure_offsets_topic(self._call_timeout)
        return KafkaProducer({"client.id": client_id, **settings}, self._offsets_topic)

    def consumer(self, group: str, client_id: str, overrides: Mapping[str, str]) -> KafkaConsumer:
        """See ``Broker.consumer``. Raises ``ConfigError`` for an override that would break a promise."""
        settings = consumer_settings(self._client, overrides)
        refresh = int(settings.pop("metadata.max.age.ms")) / 1000
        ground = ChangelogServices(
            {"client.id": client_id, **producer_settings(self._client, {})},
            self._ensure_changelog,
            self._read,
        )
        own = {"client.id": client_id, **settings, "group.id": group}
        cluster = Cluster(self._admin, self._call_timeout, self._topic_names, {self._offsets_topic})
        return KafkaConsumer(own, cluster, refresh, ground)

    def source_offsets(self, connector: str, timeout: float) -> dict[str, str]:
        """See ``Broker.source_offsets``."""
        return self._offsets.of(connector, self._bounded(timeout))

    @property
    def offsets(self) -> KafkaOffsetStore:
        """See ``Broker.offsets``."""
        return KafkaOffsetStore(
            self._admin, self._answer, self._offsets, lambda: self.producer("tieline-offsets", {})
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
        """See ``Broker.create_topic``."""
        timeout = self._bounded(timeout)
        topic = NewTopic(name, partitions, replication, config=dict(config or {}))
        futures = self._admin.create_topics([topic], request_timeout=timeout)
        try:
            self._answer(futures[name], f"creating the topic {name}", timeout)
        except _Exists:
            return False
        except FatalError:  # no right to create topics is no harm where an administrator has created this one
            if name in self._names(timeout):
                return False
            raise
        return True

    def delete_topic(self, name: str, timeout: float = 10.0) -> bool:
        """Delete a topic; false if there is none. The brokers forget it a moment later."""
        futures = self._admin.delete_topics([name], request_timeout=timeout)
        try:
            self._answer(futures[name], f"deleting the topic {name}", timeout)
        except _Missing:
            return False
        return True

    def topics(self, timeout: float = 10.0) -> dict[str, TopicInfo]:
        """See ``Broker.topics``. Those that may not be described are left out."""
        timeout = self._bounded(timeout)
        names = self._names(timeout)
        if not names:
            return {}
        futures = self._admin.describe_topics(TopicCollection(list(names)), request_timeout=timeout)
        topics = {}
        for name, future in futures.items():
            try:
                found = self._answer(future, f"describing the topic {name}", timeout)
            except _Missing:
                continue  # deleted since
            topics[name] = TopicInfo(name, str(found.topic_id), len(found.partitions))
        return topics

    def topic_names(self, timeout: float = 10.0) -> Collection[str]:
        """See ``Broker.topic_names``. Those that may not be described are there too."""
        return self._names(self._bounded(timeout))

    def read(
        self,
        topic: str,
        visit: Callable[[ConsumedRecord], None],
        *,
        start: Mapping[int, int] | None = None,
        timeout: float = 30.0,
    ) -> dict[int, int]:
        """See ``Broker.read``."""
        return self._read(topic, visit, start or {}, self._bounded(timeout))

    def reader(
        self,
        topic: str,
        *,
        since: int | None = None,
        partitions: Collection[int] | None = None,
        timeout: float = 10.0,
    ) -> KafkaTopicReader:
        """See ``Broker.reader``."""
        settings = consumer_settings(self._client, {}) | {"group.id": f"tieline-read-{topic}"}
        del settings["metadata.max.age.ms"]
        return KafkaTopicReader(settings, topic, since, partitions, self._bounded(timeout))

    def exclusive(self, topic: str, timeout: float = 10.0) -> AbstractContextManager[ExclusiveWriter]:
        """See ``Broker.exclusive``. Who comes later wins."""
        return hold_topic(producer_settings(self._client, {}), topic, timeout)

    def protect(self, groups: Mapping[str, tuple[Sequence[str], str | None]]) -> None:
        """See ``Broker.protect``: retention is the topics' own."""

    def close(self) -> None:
        """See ``Broker.close``."""
        # Nothing to do: the admin client's threads end with it.

    def _read(
        self,
        topic: str,
        visit: Callable[[ConsumedRecord], None],
        start: Mapping[int, int],
        timeout: float,
        only: int | None = None,
    ) -> dict[int, int]:
        settings = consumer_settings(self._client, {}) | {"group.id": f"tieline-read-{topic}"}
        del settings["metadata.max.age.ms"]
        return read_to_end(settings, topic, visit, start, timeout, only)

    def _read_changelog(
        self,
        topic: str,
        visit: Callable[[ConsumedRecord], None],
        start: Mapping[int, int],
        timeout: float,
        partition: int,
    ) -> None:
        """All of it: a transaction without an end would hide what was committed after its beginning."""
        timeout = self._bounded(timeout)
        reached = self._read(topic, visit, start, timeout, partition)[partition]
        at = KafkaPartition(topic, partition)
        futures = self._admin.list_offsets(
            {at: OffsetSpec.latest()},  # type: ignore[no-untyped-call]
            isolation_level=IsolationLevel.READ_UNCOMMITTED,
            request_timeout=timeout,
        )
        end = self._answer(futures[at], f"the end of {topic}-{partition}", timeout).offset
        if reached < end:
            raise RetriableError(
                f"{topic}-{partition}: from offset {reached} to {end} a transaction without an end hides it "
                "(Kafka's kafka-transactions.sh finds and aborts it)"
            )

    def _ensure_changelog(self, topic: str, consumed: str, timeout: float) -> None:
        """As many partitions as the topic whose partitions it follows, also where that has grown."""
        timeout = self._bounded(timeout)
        wanted = self._partitions(consumed, timeout)
        self.create_topic(topic, partitions=wanted, config=CHANGELOG, timeout=timeout)
        if self._partitions(topic, timeout) < wanted:
            futures = self._admin.create_partitions([NewPartitions(topic, wanted)], request_timeout=timeout)
            self._answer(futures[topic], f"adding partitions to {topic}", timeout)

    def _partitions(self, topic: str, timeout: float) -> int:
        futures = self._admin.describe_topics(TopicCollection([topic]), request_timeout=timeout)
        try:
            return len(self._answer(futures[topic], f"describing the topic {topic}", timeout).partitions)
        except _Missing:
            raise RetriableError(f"the topic {topic} is not there (yet)") from None

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

    def _bounded(self, timeout: float) -> float:
        return min(timeout, self._call_timeout)

    def _topic_names(self) -> Future[Collection[str]]:
        return run_in_thread(lambda: self._names(self._call_timeout), "listing the topics")

    def _names(self, timeout: float) -> Collection[str]:
        try:
            return list(self._admin.list_topics(timeout=timeout).topics)
        except KafkaException as error:
            refusal, hint = self._refusal(), handshakes.hint()
            cause = refusal or to_tieline_error(error, "listing the topics", Operation.METADATA)
            raise (
                RetriableError(f"{cause}; {hint}") if hint and isinstance(cause, RetriableError) else cause
            ) from error

    def _client_error(self, error: KafkaError) -> None:
        cause = to_tieline_error(error, "the admin client", Operation.ADMIN)
        if isinstance(cause, FatalError):
            self._refused = cause

    def _refusal(self) -> FatalError | None:
        """What the brokers said about our credentials, where a call of the client only timed out."""
        self._admin.poll(0)
        refused, self._refused = self._refused, None
        return refused

    def _answer(self, future: Future[Any], what: str, timeout: float) -> Any:
        try:
            return future.result(timeout)
        except FutureTimeout:
            raise self._refusal() or RetriableError(f"{what}: no answer within {timeout} s") from None
        except KafkaException as error:
            code = error.args[0].code()
            if code == KafkaError.TOPIC_ALREADY_EXISTS:
                raise _Exists from error
            if code == KafkaError.UNKNOWN_TOPIC_OR_PART:
                raise _Missing from error
            raise self._refusal() or to_tieline_error(error, what, Operation.ADMIN) from error


class _Exists(Exception):
    pass


class _Missing(Exception):
    pass
