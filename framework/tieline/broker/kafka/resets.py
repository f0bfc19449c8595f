"""Where to continue in a partition that has no record at the position. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from tieline.api import FatalError, TopicPartition
from tieline.broker.records import Skipped

POLICIES = {
    **dict.fromkeys(("earliest", "smallest", "beginning"), "earliest"),
    **dict.fromkeys(("latest", "largest", "end"), "latest"),
    "error": "error",
}
"""The values of ``auto.offset.reset`` that librdkafka accepts, and what they mean."""


class Reset(NamedTuple):
    """The offset to continue at, and the ranges that are skipped by that."""

    offset: int
    skipped: Sequence[Skipped] = ()


def reset(
    group: str, partition: TopicPartition, position: int | None, start: int, end: int, policy: str
) -> Reset:
    """Return where to continue. ``position`` is ``None`` if the group has committed nothing.

    ``start`` and ``end``: the first offset that the partition holds, and the one after its last. Offsets
    that the log has removed, and what ``latest`` passes over, are skipped. Raises ``FatalError`` for the
    policy ``error``, with the command that helps.
    """
    if position is not None and start <= position <= end:
        return Reset(position)  # the replica was behind its leader
    if policy == "error":
        raise FatalError(_describe_missing(group, partition, position, start, end))
    target = end if policy == "latest" else start
    if position is None:
        return Reset(target)
    skipped = []
    if position < start:
        skipped.append(Skipped(partition, position, start, "expired"))
    if policy == "latest" and max(position, start) < end:
        skipped.append(Skipped(partition, max(position, start), end, "reset"))
    return Reset(target, skipped)


def command(group: str, partition: TopicPartition, to: int | str) -> str:
    """Return the command that sets the offset of a sink's partition."""
    name = group.removeprefix("connect-")
    where = f"--topic {partition.topic} --partition {partition.partition}"
    return f"tieline offsets set {name} --worker FILE {where} --to {to}"


def describe_unreadable(group: str, partition: TopicPartition, position: int | None, why: str) -> str:
    """Return the message about a batch that the client cannot read, with the fix."""
    offset = "the next offset" if position is None else f"offset {position}"
    return (
        f"{partition.topic}-{partition.partition} cannot be read: the batch at {offset} is damaged, or "
        f"larger than this client accepts: {why}. If it is too large, raise "
        "consumer.override.receive.message.max.bytes. To pass over it: find the offset after the batch "
        "(kafka-dump-log.sh prints its lastOffset), stop the sink, "
        f"{command(group, partition, 'OFFSET')}, and start it again"
    )


def _describe_missing(
    group: str, partition: TopicPartition, position: int | None, start: int, end: int
) -> str:
    place = f"{partition.topic}-{partition.partition}"
    if position is None:
        why = "the group has committed no offset"
    elif position < start:
        why = f"the {start - position} offsets from {position} to {start - 1} have expired"
    else:
        why = f"the position {position} is behind its end"
    holds = f"holds {start} to {end - 1}" if end > start else f"is empty (the next offset is {end})"
    return (
        f"{place} cannot be read: {why}; it {holds}, and auto.offset.reset is error. "
        f"Choose where to continue: stop the sink, {command(group, partition, start)}, and start it again"
    )
