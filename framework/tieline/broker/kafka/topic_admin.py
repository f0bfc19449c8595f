"""Topics on Kafka: create, delete and describe them. Any thread may use it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Any

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewPartitions, NewTopic

from tieline.api import FatalError, RetriableError
from tieline.broker.kafka.codes import Operation
from tieline.broker.kafka.errors import MissingTopicError, TopicExistsError, to_tieline_error
from tieline.broker.kafka.handshake import handshakes
from tieline.broker.kafka.settings import create_client, log
from tieline.broker.records import TopicInfo


class TopicAdmin:
    """Makes the calls of an admin client, and raises tieline's errors. Each ``timeout`` is in seconds."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        """``settings``: those of the client. Raises ``ConfigError`` for unknown ones."""
        self._fatal: FatalError | None = None
        extra = {"logger": log, "error_cb": self._on_error}
        self.client = create_client(AdminClient, {**settings, **extra}, "")

    def cluster_id(self, timeout: float) -> str:
        """Return the permanent id of the cluster."""
        future = self.client.describe_cluster(request_timeout=timeout)
        return str(self.answer(future, "the cluster's id", timeout).cluster_id)

    def create(
        self, name: str, partitions: int, replication: int, config: Mapping[str, str], timeout: float
    ) -> bool:
        """Create a topic; -1 means the broker's default. Return ``False`` if it exists."""
        topic = NewTopic(name, partitions, replication, config=dict(config))
        futures = self.client.create_topics([topic], request_timeout=timeout)
        try:
            self.answer(futures[name], f"creating the topic {name}", timeout)
        except TopicExistsError:
            return False
        except FatalError:  # without permission, an administrator may have created it
            if name in self.names(timeout):
                return False
            raise
        return True

    def delete(self, name: str, timeout: float) -> bool:
        """Delete a topic. Return ``False`` if it does not exist. It disappears a moment later."""
        futures = self.client.delete_topics([name], request_timeout=timeout)
        try:
            self.answer(futures[name], f"deleting the topic {name}", timeout)
        except MissingTopicError:
            return False
        return True

    def describe_all(self, timeout: float) -> dict[str, TopicInfo]:
        """Return all topics by name; those that this client may not describe are left out."""
        names = self.names(timeout)
        if not names:
            return {}
        futures = self.client.describe_topics(TopicCollection(list(names)), request_timeout=timeout)
        topics = {}
        for name, future in futures.items():
            try:
                topic = self.answer(future, f"describing the topic {name}", timeout)
            except MissingTopicError:
                continue  # deleted meanwhile
            topics[name] = TopicInfo(name, str(topic.topic_id), len(topic.partitions))
        return topics

    def partitions(self, topic: str, timeout: float) -> int:
        """Return the number of partitions of a topic. Raises ``RetriableError`` if it does not exist."""
        futures = self.client.describe_topics(TopicCollection([topic]), request_timeout=timeout)
        try:
            return len(self.answer(futures[topic], f"describing the topic {topic}", timeout).partitions)
        except MissingTopicError:
            raise RetriableError(f"the topic {topic} does not exist (yet)") from None

    def add_partitions(self, topic: str, total: int, timeout: float) -> None:
        """Add partitions to a topic, so that it has ``total``."""
        futures = self.client.create_partitions([NewPartitions(topic, total)], request_timeout=timeout)
        self.answer(futures[topic], f"adding partitions to {topic}", timeout)

    def names(self, timeout: float) -> Collection[str]:
        """Return the names of all topics, including those that this client may not describe."""
        try:
            return list(self.client.list_topics(timeout=timeout).topics)
        except KafkaException as error:
            fatal, hint = self._take_fatal(), handshakes.hint()
            cause = fatal or to_tieline_error(error, "listing the topics", Operation.METADATA)
            raise (
                RetriableError(f"{cause}; {hint}") if hint and isinstance(cause, RetriableError) else cause
            ) from error

    def answer(self, future: Future[Any], what: str, timeout: float) -> Any:
        """Wait for a call's result; ``what`` says in errors what was called."""
        try:
            return future.result(timeout)
        except FutureTimeout:
            raise self._take_fatal() or RetriableError(f"{what}: no answer within {timeout} s") from None
        except KafkaException as error:
            code = error.args[0].code()
            if code == KafkaError.TOPIC_ALREADY_EXISTS:
                raise TopicExistsError from error
            if code == KafkaError.UNKNOWN_TOPIC_OR_PART:
                raise MissingTopicError from error
            raise self._take_fatal() or to_tieline_error(error, what, Operation.ADMIN) from error

    def _on_error(self, error: KafkaError) -> None:
        cause = to_tieline_error(error, "the admin client", Operation.ADMIN)
        if isinstance(cause, FatalError):
            self._fatal = cause

    def _take_fatal(self) -> FatalError | None:
        """Return and forget a fatal error that the client reported, such as wrong credentials."""
        self.client.poll(0)
        fatal, self._fatal = self._fatal, None
        return fatal
