"""Offsets of stopped connectors, on Kafka: admin calls, and the topic of source offsets."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar

from confluent_kafka import ConsumerGroupTopicPartitions, KafkaError, KafkaException
from confluent_kafka import TopicPartition as KafkaPartition
from confluent_kafka import admin as kafka_admin

from tieline.api import DataError, FatalError, RetriableError, TopicPartition
from tieline.broker.kafka.codes import Operation
from tieline.broker.kafka.errors import MissingTopicError, to_tieline_error
from tieline.broker.kafka.producer import KafkaProducer
from tieline.broker.kafka.source_offsets import OffsetsTopic, offset_record
from tieline.broker.offset_admin import GroupState, Span
from tieline.broker.records import Unit

_SPEC: Any = kafka_admin.OffsetSpec  # type: ignore[attr-defined]
T = TypeVar("T")
Answer = Callable[[Any, str, float], Any]
"""Waits for a future of the admin client: ``(future, what, timeout)``. Raises tieline's errors."""


class KafkaOffsetAdmin:
    """An ``OffsetAdmin`` on Kafka, which itself refuses to change the offsets of a group with members."""

    def __init__(
        self,
        admin: kafka_admin.AdminClient,
        answer: Answer,
        saved: OffsetsTopic,
        producer: Callable[[], KafkaProducer],
    ) -> None:
        self._admin = admin
        self._answer = answer
        self._saved = saved
        self._producer = producer

    def groups(self, timeout: float) -> Collection[str]:
        """Return all groups with a committed offset; see ``OffsetAdmin.groups``."""
        future = self._admin.list_consumer_groups(request_timeout=timeout)
        groups = self._answer(future, "listing the groups", timeout)
        return [group.group_id for group in groups.valid]

    def group(self, name: str, timeout: float) -> GroupState:
        """Return a group; see ``OffsetAdmin.group``."""
        return _retry_at_coordinator(lambda left: self._group(name, left), timeout)

    def _group(self, name: str, timeout: float) -> GroupState:
        futures: Any = self._admin.describe_consumer_groups([name], request_timeout=timeout)
        try:
            members = self._answer(futures[name], f"describing the group {name}", timeout).members
        except RetriableError as error:
            if _code(error) != KafkaError.GROUP_ID_NOT_FOUND:
                raise
            members = []
        wanted = [ConsumerGroupTopicPartitions(name)]
        # The offset of a transaction that has just ended is unstable until its end is written everywhere.
        futures = self._admin.list_consumer_group_offsets(
            wanted, require_stable=True, request_timeout=timeout
        )
        group = self._answer(futures[name], f"the offsets of the group {name}", timeout)
        for stored in group.topic_partitions:
            _raise(stored.error, f"the offset of {stored.topic}-{stored.partition}", Operation.METADATA)
        committed = {
            TopicPartition(stored.topic, stored.partition): stored.offset
            for stored in group.topic_partitions
            if stored.offset >= 0
        }
        return GroupState(committed, [f"{member.client_id}{member.host}" for member in members])

    def spans(self, topics: Collection[str], timeout: float) -> dict[TopicPartition, Span]:
        """Return the span of each partition of these topics; see ``OffsetAdmin.spans``."""
        first = self._offsets(topics, _SPEC.earliest(), timeout)
        end = self._offsets(topics, _SPEC.latest(), timeout)
        return {partition: Span(first[partition], end[partition]) for partition in first.keys() & end.keys()}

    def first_since(
        self, topics: Collection[str], timestamp: int, timeout: float
    ) -> dict[TopicPartition, int]:
        """Return the first offset at or after a time, else the end; see ``OffsetAdmin.first_since``."""
        first = self._offsets(topics, _SPEC.for_timestamp(timestamp), timeout)
        end = self._offsets(topics, _SPEC.latest(), timeout)
        return {
            partition: offset if offset >= 0 else end[partition]
            for partition, offset in first.items()
            if partition in end
        }

    def commit(self, group: str, offsets: Mapping[TopicPartition, int], timeout: float) -> None:
        """Set offsets of a group; see ``OffsetAdmin.commit``."""
        _retry_at_coordinator(lambda left: self._commit(group, offsets, left), timeout)

    def _commit(self, group: str, offsets: Mapping[TopicPartition, int], timeout: float) -> None:
        wanted = [KafkaPartition(*partition, offset) for partition, offset in offsets.items()]
        futures: Any = self._admin.alter_consumer_group_offsets(
            [ConsumerGroupTopicPartitions(group, wanted)], request_timeout=timeout
        )
        answer = self._answer(futures[group], f"setting offsets of the group {group}", timeout)
        for result in answer.topic_partitions:
            if result.error is not None:
                code = result.error.code()
                if code in (KafkaError.UNKNOWN_MEMBER_ID, KafkaError.REBALANCE_IN_PROGRESS):
                    raise FatalError(f"the offsets of the group {group} cannot be set: it has members now")
                what = f"setting the offset of {result.topic}-{result.partition}"
                _raise(result.error, what, Operation.COMMIT)

    def remove(self, group: str, timeout: float) -> None:
        """Remove all offsets of a group; see ``OffsetAdmin.remove``."""
        _retry_at_coordinator(lambda left: self._remove(group, left), timeout)

    def _remove(self, group: str, timeout: float) -> None:
        futures: Any = self._admin.delete_consumer_groups([group], request_timeout=timeout)
        try:
            self._answer(futures[group], f"deleting the group {group}", timeout)
        except RetriableError as error:
            if _code(error) == KafkaError.NON_EMPTY_GROUP:
                raise FatalError(
                    f"the offsets of the group {group} cannot be removed: it has members now"
                ) from None
            raise

    def has_changelog(self, topic: str, timeout: float) -> bool:
        """Return whether a sink keeps a changelog of this name; see ``OffsetAdmin.has_changelog``."""
        return topic in self._partitions(timeout)

    def sources(self, timeout: float) -> Collection[str]:
        """Return the connectors with saved source offsets; see ``OffsetAdmin.sources``."""
        return self._saved.connectors(timeout)

    def save_source(self, connector: str, offsets: Mapping[str, str | None], timeout: float) -> None:
        """Save source offsets; see ``OffsetAdmin.save_source``."""
        records = [
            offset_record(self._saved.topic, connector, partition, offset)
            for partition, offset in offsets.items()
        ]
        producer = self._producer()
        try:
            producer.send(Unit(records))
            deliveries = producer.poll(timeout)
        finally:
            producer.close(0)
        if not deliveries:
            raise RetriableError(f"{self._saved.topic}: no acknowledgement within {timeout:g} s")
        if deliveries[0].failures:
            raise DataError(deliveries[0].failures)

    def _offsets(self, topics: Collection[str], spec: Any, timeout: float) -> dict[TopicPartition, int]:
        known = self._partitions(timeout)
        wanted = {KafkaPartition(topic, p): spec for topic in topics for p in known.get(topic, ())}
        if not wanted:
            return {}
        futures = self._admin.list_offsets(wanted, request_timeout=timeout)
        offsets: dict[TopicPartition, int] = {}
        for where, future in futures.items():
            try:
                answer = self._answer(future, f"the offsets of {where.topic}-{where.partition}", timeout)
            except MissingTopicError:  # deleted meanwhile
                continue
            offsets[TopicPartition(where.topic, where.partition)] = answer.offset
        return offsets

    def _partitions(self, timeout: float) -> dict[str, list[int]]:
        try:
            topics = self._admin.list_topics(timeout=timeout).topics
        except KafkaException as error:
            raise to_tieline_error(error, "listing the topics", Operation.METADATA) from error
        return {name: list(topic.partitions) for name, topic in topics.items() if topic.error is None}


def _code(error: RetriableError) -> Any:
    """Return Kafka's code of an error."""
    return error.__cause__.args[0].code() if isinstance(error.__cause__, KafkaException) else None


_PASSING = {
    KafkaError.NOT_COORDINATOR,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.UNSTABLE_OFFSET_COMMIT,
}
_RETRY_AFTER = 0.2


def _retry_at_coordinator(call: Callable[[float], T], timeout: float) -> T:
    """Repeat a call while the group's coordinator moves or a transaction of the group ends."""
    deadline = time.monotonic() + timeout
    while True:
        try:
            return call(max(0.1, deadline - time.monotonic()))
        except RetriableError as error:
            if _code(error) not in _PASSING or time.monotonic() + _RETRY_AFTER >= deadline:
                raise
        time.sleep(_RETRY_AFTER)


def _raise(error: KafkaError | None, what: str, operation: Operation) -> None:
    if error is not None:
        raise to_tieline_error(error, what, operation) from KafkaException(error)
