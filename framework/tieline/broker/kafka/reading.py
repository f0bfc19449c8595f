"""Reading a topic to its end, outside any group."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException
from confluent_kafka import TopicPartition as KafkaPartition

from tieline.api import FatalError, RetriableError
from tieline.broker.kafka.codes import Operation
from tieline.broker.kafka.errors import PARTITION_EOF, call_with_timeout, to_tieline_error
from tieline.broker.kafka.records import to_record
from tieline.broker.kafka.settings import ClientSettings, create_client
from tieline.broker.records import ConsumedRecord

_BATCH = 1_000
_CLOSE_TIMEOUT = 10.0

Visit = Callable[[ConsumedRecord], None]


def read_to_end(
    settings: ClientSettings,
    topic: str,
    visit: Visit,
    start: Mapping[int, int],
    timeout: float,
    only: int | None = None,
) -> dict[int, int]:
    """Visit every record of a topic; see ``Broker.read``. ``only``: read just this partition.

    A partition has ended where only markers of transactions follow.
    """
    reading = _Reading(settings, topic, timeout)
    try:
        ends = reading.ends(only)
        reached = dict(start)
        for partition, (first, _) in ends.items():
            reached[partition] = max(reached.get(partition, 0), first)
        reading.visit_to({partition: end for partition, (_, end) in ends.items()}, reached, visit)
        return reached
    except KafkaException as error:
        raise reading.translate(error) from error
    finally:
        reading.close()


def end_of(settings: ClientSettings, topic: str, partition: int, timeout: float) -> int:
    """Return the end of a partition for readers with this isolation level.

    A new client asks: after a leader has changed, the admin client's question fails with an old epoch until
    its metadata are renewed.
    """
    reading = _Reading(settings, topic, timeout)
    try:
        return reading.ends(partition)[partition][1]
    except KafkaException as error:
        raise reading.translate(error) from error
    finally:
        reading.close()


class _Reading:
    """One client, which reads one topic within a time-out."""

    def __init__(self, settings: ClientSettings, topic: str, timeout: float) -> None:
        self._topic = topic
        self._what = f"reading {topic}"
        self._timeout = timeout
        self._deadline = time.monotonic() + timeout
        self._fatal: FatalError | None = None
        overrides = {"fetch.wait.max.ms": 10, "enable.partition.eof": "true", "error_cb": self._on_error}
        self._client = create_client(Consumer, settings | overrides, "")

    def ends(self, only: int | None) -> dict[int, tuple[int, int]]:
        """Return the first offset and the end of each partition; empty if the topic does not exist."""
        topic = self._client.list_topics(self._topic, timeout=self._left()).topics.get(self._topic)
        if only is not None and (topic is None or only not in topic.partitions):
            raise RetriableError(f"{self._what}: partition {only} is not known yet")
        if topic is None:
            return {}
        if topic.error is not None:
            if topic.error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
                return {}
            raise to_tieline_error(topic.error, self._what, Operation.METADATA)
        ends: dict[int, tuple[int, int]] = {}
        for partition in topic.partitions if only is None else [only]:
            where = KafkaPartition(self._topic, partition)
            marks = self._client.get_watermark_offsets(where, timeout=self._left())
            if marks is None:
                raise RetriableError(f"{self._what}: no answer about its end")
            ends[partition] = marks
        return ends

    def visit_to(self, ends: Mapping[int, int], reached: dict[int, int], visit: Visit) -> None:
        """Visit the records from ``reached`` to ``ends``, and move ``reached`` along."""
        unfinished = {partition for partition, end in ends.items() if reached[partition] < end}
        self._client.assign(
            [KafkaPartition(self._topic, p, reached[p] or OFFSET_BEGINNING) for p in sorted(unfinished)]
        )
        while unfinished:
            messages: list[Any] = [self._client.poll(self._left())]
            messages += self._client.consume(_BATCH, 0)
            for message in messages:
                if message is None or message.partition() not in unfinished:
                    continue
                partition, error = message.partition(), message.error()
                if error is None:
                    if message.offset() < ends[partition]:
                        visit(to_record(message))
                        reached[partition] = message.offset() + 1
                elif error.code() == PARTITION_EOF:
                    reached[partition] = max(reached[partition], message.offset())
                    unfinished.discard(partition)
                else:
                    raise to_tieline_error(error, self._what, Operation.READ)
                if reached[partition] >= ends[partition]:
                    unfinished.discard(partition)

    def translate(self, error: KafkaException) -> Exception:
        """Return the fatal error that the client has reported, else the translated one."""
        self._client.poll(0)
        return self._fatal or to_tieline_error(error, self._what, Operation.METADATA)

    def close(self) -> None:
        """Close the client."""
        call_with_timeout(self._client.close, _CLOSE_TIMEOUT, f"{self._what}: closing")

    def _left(self) -> float:
        """Return the seconds that are left. Raises what must end the reading."""
        if self._fatal is not None:
            raise self._fatal
        seconds = self._deadline - time.monotonic()
        if seconds <= 0:
            raise RetriableError(f"{self._what}: the end was not reached within {self._timeout} s")
        return seconds

    def _on_error(self, error: KafkaError) -> None:
        cause = to_tieline_error(error, self._what, Operation.METADATA)
        if isinstance(cause, FatalError) and self._fatal is None:
            self._fatal = cause
