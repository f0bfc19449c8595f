"""Offsets from outside, on Kafka: its admin calls, and the topic of source offsets."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar

from confluent_kafka import ConsumerGroupTopicPartitions, KafkaError, KafkaException
from confluent_kafka import TopicPartition as KafkaPartition
from confluent_kafka import admin as kafka_admin

from tieline.api import DataError, FatalError, RetriableError, TielineError, TopicPartition
from tieline.broker.kafka.codes import Operation
from tieline.broker.kafka.errors import to_tieline_error
from tieline.broker.kafka.offsets import OffsetsTopic
from tieline.broker.kafka.producer import KafkaProducer
from tieline.broker.offsets import GroupState, Span
from tieline.broker.port import ProducerRecord, Unit

_SPEC: Any = kafka_admin.OffsetSpec  # type: ignore[attr-defined]
T = TypeVar("T")
Answer = Callable[[Any, str, float], Any]
"""What a future of the admin client comes to: ``(future, what, timeout)``; raises tieline's errors."""


class KafkaOffsetStore:
    """See ``OffsetStore``. Kafka itself refuses to change the offsets of a group that has members."""

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
        """See ``OffsetStore.groups``."""
        future = self._admin.list_consumer_groups(request_timeout=timeout)
        found = self._answer(future, "listing the groups", timeout)
        return [group.group_id for group in found.valid]

    def group(self, name: str, timeout: float) -> GroupState:
        """See ``OffsetStore.group``."""
        return _at_coordinator(lambda left: self._group(name, left), timeout)

    def _group(self, name: str, timeout: float) -> GroupState:
        asked: Any = self._admin.describe_consumer_groups([name], request_timeout=timeout)
        try:
            members = self._answer(asked[name], f"describing the group {name}", timeout).members
        except RetriableError as error:
            if _code(error) != KafkaError.GROUP_ID_NOT_FOUND:
                raise
            members = []
        wanted = [ConsumerGroupTopicPartitions(name)]
        # An offset that a transaction has just moved is not there until its end is written everywhere.
        asked = self._admin.list_consumer_group_offsets(wanted, require_stable=True, request_timeout=timeout)
        found = self._answer(asked[name], f"the offsets of the group {name}", timeout)
        for at in found.topic_partitions:
            _raise(at.error, f"the offset of {at.topic}-{at.partition}", Operation.METADATA)
        committed = {
            TopicPartition(at.topic, at.partition): at.offset
            for at in found.topic_partitions
            if at.offset >= 0
        }
        return GroupState(committed, [f"{member.client_id}{member.host}" for member in members])

    def spans(self, topics: Collection[str], timeout: float) -> dict[TopicPartition, Span]:
        """See ``OffsetStore.spans``."""
        first = self._offsets(topics, _SPEC.earliest(), timeout)
        end = self._offsets(topics, _SPEC.latest(), timeout)
        return {at: Span(first[at], end[at]) for at in first.keys() & end.keys()}

    def first_since(
        self, topics: Collection[str], timestamp: int, timeout: float
    ) -> dict[TopicPartition, int]:
        """See ``OffsetStore.first_since``."""
        found = self._offsets(topics, _SPEC.for_timestamp(timestamp), timeout)
        end = self._offsets(topics, _SPEC.latest(), timeout)
        return {at: offset if offset >= 0 else end[at] for at, offset in found.items() if at in end}

    def commit(self, group: str, offsets: Mapping[TopicPartition, int], timeout: float) -> None:
        """See ``OffsetStore.commit``."""
        _at_coordinator(lambda left: self._commit(group, offsets, left), timeout)

    def _commit(self, group: str, offsets: Mapping[TopicPartition, int], timeout: float) -> None:
        wanted = [KafkaPartition(*at, offset) for at, offset in offsets.items()]
        asked: Any = self._admin.alter_consumer_group_offsets(
            [ConsumerGroupTopicPartitions(group, wanted)], request_timeout=timeout
        )
        found = self._answer(asked[group], f"setting offsets of the group {group}", timeout)
        for at in found.topic_partitions:
            if at.error is not None:
                code = at.error.code()
                if code in (KafkaError.UNKNOWN_MEMBER_ID, KafkaError.REBALANCE_IN_PROGRESS):
                    raise FatalError(f"the offsets of the group {group} cannot be set: it has members now")
                _raise(at.error, f"setting the offset of {at.topic}-{at.partition}", Operation.COMMIT)

    def forget(self, group: str, timeout: float) -> None:
        """See ``OffsetStore.forget``."""
        _at_coordinator(lambda left: self._forget(group, left), timeout)

    def _forget(self, group: str, timeout: float) -> None:
        asked: Any = self._admin.delete_consumer_groups([group], request_timeout=timeout)
        try:
            self._answer(asked[group], f"deleting the group {group}", timeout)
        except RetriableError as error:
            if _code(error) == KafkaError.NON_EMPTY_GROUP:
                raise FatalError(
                    f"the offsets of the group {group} cannot be removed: it has members now"
                ) from None
            raise

    def has_changelog(self, topic: str, timeout: float) -> bool:
        """See ``OffsetStore.has_changelog``."""
        return topic in self._partitions(timeout)

    def sources(self, timeout: float) -> Collection[str]:
        """See ``OffsetStore.sources``."""
        return self._saved.connectors(timeout)

    def save_source(self, connector: str, offsets: Mapping[str, str | None], timeout: float) -> None:
        """See ``OffsetStore.save_source``."""
        records = [
            ProducerRecord(
                self._saved.topic,
                None if offset is None else offset.encode(),
                f"[{json.dumps(connector)},{partition}]".encode(),
            )
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
        asked = self._admin.list_offsets(wanted, request_timeout=timeout)
        found: dict[TopicPartition, int] = {}
        for at, future in asked.items():
            try:
                answer = self._answer(future, f"the offsets of {at.topic}-{at.partition}", timeout)
            except TielineError:
                raise
            except Exception:  # the topic was deleted since
                continue
            found[TopicPartition(at.topic, at.partition)] = answer.offset
        return found

    def _partitions(self, timeout: float) -> dict[str, list[int]]:
        try:
            found = self._admin.list_topics(timeout=timeout).topics
        except KafkaException as error:
            raise to_tieline_error(error, "listing the topics", Operation.METADATA) from error
        return {name: list(topic.partitions) for name, topic in found.items() if topic.error is None}


def _code(error: RetriableError) -> Any:
    """Kafka's own code behind an error."""
    return error.__cause__.args[0].code() if isinstance(error.__cause__, KafkaException) else None


_PASSES = {
    KafkaError.NOT_COORDINATOR,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.UNSTABLE_OFFSET_COMMIT,
}
_PAUSE = 0.2


def _at_coordinator(call: Callable[[float], T], timeout: float) -> T:
    """Ask again while the group's coordinator moves, or a transaction of it ends: that takes moments."""
    deadline = time.monotonic() + timeout
    while True:
        try:
            return call(max(0.1, deadline - time.monotonic()))
        except RetriableError as error:
            if _code(error) not in _PASSES or time.monotonic() + _PAUSE >= deadline:
                raise
        time.sleep(_PAUSE)


def _raise(error: KafkaError | None, what: str, operation: Operation) -> None:
    if error is not None:
        raise to_tieline_error(error, what, operation) from KafkaException(error)
