"""Following one topic of Kafka, outside any group."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException
from confluent_kafka import TopicPartition as KafkaPartition

from tieline.api import FatalError, RetriableError, TielineError
from tieline.broker.kafka.codes import Operation
from tieline.broker.kafka.errors import (
    PARTITION_EOF,
    UNKNOWN_PARTITION,
    UNKNOWN_TOPIC,
    call_with_timeout,
    error_code,
    to_tieline_error,
)
from tieline.broker.kafka.records import to_record
from tieline.broker.kafka.settings import ClientSettings, create_client
from tieline.broker.records import ConsumedRecord

_CHECK_PARTITIONS_EVERY = 10.0  # seconds between two looks for added partitions
_CHECK_TOPIC_EVERY = 0.25  # seconds between two looks for a topic that does not exist
_CHECK_TIMEOUT = 1.0
_ALL_BROKERS_DOWN = error_code("_ALL_BROKERS_DOWN")
_GONE = {
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    UNKNOWN_TOPIC,
    UNKNOWN_PARTITION,
}
"""The topic does not exist, or was deleted and may be recreated."""


class KafkaTopicReader:
    """A ``TopicReader`` on Kafka. Partitions are assigned, so the brokers know no group."""

    def __init__(
        self,
        settings: ClientSettings,
        topic: str,
        since: int | None,
        partitions: Collection[int] | None,
        timeout: float,
    ) -> None:
        extra = {"enable.partition.eof": "true", "error_cb": self._on_error}
        self._client = create_client(Consumer, settings | extra, "")
        self._topic = topic
        self._wanted = partitions
        self._what = f"reading {topic}"
        self._error: TielineError | None = None
        self._known: set[int] = set()
        self._ends: dict[int, int] = {}
        self._due = 0.0
        try:
            self._begin(since, timeout)
        except BaseException:
            self.close(timeout)
            raise

    @property
    def at_end(self) -> bool:
        """Whether everything that the topic held at the start was returned; see ``TopicReader.at_end``."""
        return not self._ends

    def poll(self, max_records: int, timeout: float) -> list[ConsumedRecord]:
        """Return the next records; see ``TopicReader.poll``."""
        deadline = time.monotonic() + timeout
        while True:
            left = max(0.0, deadline - time.monotonic())
            self._add_partitions(min(left, _CHECK_TIMEOUT))
            records = self._take(max_records, min(left, max(0.0, self._due - time.monotonic())))
            if records:
                return records
            if self._error is not None:
                error, self._error = self._error, None
                raise error
            if time.monotonic() >= deadline:
                return []

    def close(self, timeout: float) -> None:
        """Close the reader; see ``TopicReader.close``."""
        call_with_timeout(self._client.close, timeout, f"{self._what}: closing")

    def _begin(self, since: int | None, timeout: float) -> None:
        deadline = time.monotonic() + timeout

        def left() -> float:
            self._client.poll(0)
            if isinstance(self._error, FatalError):
                raise self._error
            seconds = deadline - time.monotonic()
            if seconds <= 0:
                raise RetriableError(f"{self._what}: no answer within {timeout} s")
            return seconds

        try:
            self._known = self._partitions(left())
            starts: dict[int, int] = {}
            for partition in self._known:
                marks = self._client.get_watermark_offsets(
                    KafkaPartition(self._topic, partition), timeout=left()
                )
                if marks is None:
                    raise RetriableError(f"{self._what}: no answer about its end")
                starts[partition] = marks[1] if since is None else marks[0]
                self._ends[partition] = marks[1]
            if since is not None and since > 0:
                starts |= self._since(since, left)
        except KafkaException as error:
            self._client.poll(0)
            fatal = self._error if isinstance(self._error, FatalError) else None
            raise fatal or to_tieline_error(error, self._what, Operation.METADATA) from error
        for partition, start in starts.items():
            if start >= self._ends[partition]:
                del self._ends[partition]
        self._client.assign([KafkaPartition(self._topic, p, start) for p, start in sorted(starts.items())])
        self._error = None  # of one broker among others, meanwhile

    def _since(self, since: int, left: Callable[[], float]) -> dict[int, int]:
        """Return the offsets at a time, or the ends, which are known before: no new record is skipped."""
        wanted = [KafkaPartition(self._topic, partition, since) for partition in self._known]
        starts = {}
        for start in self._client.offsets_for_times(wanted, timeout=left()) if wanted else ():
            if start.error is not None:
                raise to_tieline_error(start.error, self._what, Operation.METADATA)
            starts[start.partition] = start.offset if start.offset >= 0 else self._ends[start.partition]
        return starts

    def _partitions(self, timeout: float) -> set[int]:
        topic = self._client.list_topics(self._topic, timeout=timeout).topics.get(self._topic)
        if topic is None or (topic.error is not None and topic.error.code() in _GONE):
            return set()
        if topic.error is not None:
            raise to_tieline_error(topic.error, self._what, Operation.METADATA)
        return {p for p in topic.partitions if self._wanted is None or p in self._wanted}

    def _add_partitions(self, timeout: float) -> None:
        now = time.monotonic()
        if now < self._due:
            return
        try:
            coming = self._partitions(max(timeout, 0.01)) - self._known
        except (KafkaException, RetriableError):
            coming = set()  # the next look finds them
        self._known |= coming
        self._due = time.monotonic() + (_CHECK_PARTITIONS_EVERY if self._known else _CHECK_TOPIC_EVERY)
        if coming:
            self._client.incremental_assign(
                [KafkaPartition(self._topic, partition, OFFSET_BEGINNING) for partition in sorted(coming)]
            )

    def _take(self, max_records: int, timeout: float) -> list[ConsumedRecord]:
        try:
            messages: list[Any] = [self._client.poll(timeout)]
            if messages[0] is not None and max_records > 1:
                messages += self._client.consume(max_records - 1, 0)
        except KafkaException as error:
            raise to_tieline_error(error, self._what, Operation.READ) from error
        records: list[ConsumedRecord] = []
        for message in messages:
            if message is None:
                continue
            partition, problem = message.partition(), message.error()
            if problem is None:
                records.append(to_record(message))
                if message.offset() + 1 >= self._ends.get(partition, 0):
                    self._ends.pop(partition, None)
            elif problem.code() == PARTITION_EOF:  # also where only markers follow
                self._ends.pop(partition, None)
            elif problem.code() in _GONE:
                self._ends.clear()
            else:
                self._error = to_tieline_error(problem, self._what, Operation.READ)
        return records

    def _on_error(self, error: KafkaError) -> None:
        cause = to_tieline_error(error, self._what, Operation.METADATA)
        if isinstance(cause, FatalError) or error.code() == _ALL_BROKERS_DOWN:
            self._error = cause
