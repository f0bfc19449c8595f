"""Reading a topic to its end, without a group."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException
from confluent_kafka import TopicPartition as KafkaPartition

from tieline.api import FatalError, RetriableError, TielineError
from tieline.broker.kafka.codes import Operation
from tieline.broker.kafka.errors import call_with_timeout, to_tieline_error
from tieline.broker.kafka.records import to_record
from tieline.broker.kafka.settings import ClientSettings, create_client
from tieline.broker.port import ConsumedRecord

_BATCH = 1_000


def read_to_end(
    settings: ClientSettings,
    topic: str,
    visit: Callable[[ConsumedRecord], None],
    start: Mapping[int, int],
    timeout: float,
    only: int | None = None,
) -> dict[int, int]:
    """See ``Broker.read``. The end of a partition is where only markers of transactions follow.

    ``only``: just this partition.
    """
    deadline = time.monotonic() + timeout
    what = f"reading {topic}"
    refused: list[TielineError] = []

    def client_error(error: KafkaError) -> None:
        cause = to_tieline_error(error, what, Operation.METADATA)
        if isinstance(cause, FatalError):
            refused.append(cause)

    own = {"fetch.wait.max.ms": 10, "enable.partition.eof": "true", "error_cb": client_error}
    client = create_client(Consumer, settings | own, "")

    def left() -> float:
        if refused:
            raise refused[0]
        seconds = deadline - time.monotonic()
        if seconds <= 0:
            raise RetriableError(f"{what}: the end was not reached within {timeout} s")
        return seconds

    try:
        reached = dict(start)
        ends = _ends(client, topic, left, only)
        for partition, (low, _) in ends.items():
            reached[partition] = max(reached.get(partition, 0), low)
        open_ = {partition for partition, (_, end) in ends.items() if reached[partition] < end}
        client.assign([KafkaPartition(topic, p, reached[p] or OFFSET_BEGINNING) for p in sorted(open_)])
        while open_:
            messages: list[Any] = [client.poll(left())]
            messages += client.consume(_BATCH, 0)
            for message in messages:
                if message is None or message.partition() not in open_:
                    continue
                partition, error = message.partition(), message.error()
                if error is None:
                    if message.offset() < ends[partition][1]:
                        visit(to_record(message))
                        reached[partition] = message.offset() + 1
                elif error.code() == KafkaError._PARTITION_EOF:
                    reached[partition] = max(reached[partition], message.offset())
                    open_.discard(partition)
                else:
                    raise to_tieline_error(error, what, Operation.READ)
                if reached[partition] >= ends[partition][1]:
                    open_.discard(partition)
        return reached
    except KafkaException as error:
        client.poll(0)
        raise (refused[0] if refused else to_tieline_error(error, what, Operation.METADATA)) from error
    finally:
        call_with_timeout(client.close, 10.0, f"{what}: closing")


def _ends(
    client: Consumer, topic: str, left: Callable[[], float], only: int | None
) -> dict[int, tuple[int, int]]:
    """The first offset and the end of each partition; empty where there is no such topic."""
    found = client.list_topics(topic, timeout=left()).topics.get(topic)
    if only is not None and (found is None or only not in found.partitions):
        raise RetriableError(f"reading {topic}: partition {only} is not known yet")
    if found is None or (found.error is not None and found.error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART):
        return {}
    if found.error is not None:
        raise to_tieline_error(found.error, f"reading {topic}", Operation.METADATA)
    ends: dict[int, tuple[int, int]] = {}
    for partition in found.partitions if only is None else [only]:
        marks = client.get_watermark_offsets(KafkaPartition(topic, partition), timeout=left())
        if marks is None:
            raise RetriableError(f"reading {topic}: no answer about its end")
        ends[partition] = marks
    return ends
