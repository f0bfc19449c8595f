"""Where to continue in a partition that has no record at the position. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from tieline.api import FatalError, TopicPartition
from tieline.broker.port import Skipped

POLICIES = {
    **dict.fromkeys(("earliest", "smallest", "beginning"), "earliest"),
    **dict.fromkeys(("latest", "largest", "end"), "latest"),
    "error": "error",
}
"""The values of ``auto.offset.reset``, as librdkafka takes them."""


class Reset(NamedTuple):
    """The offset to continue at, and what is passed over by that."""

    offset: int
    skipped: Sequence[Skipped] = ()


def reset(group: str, at: TopicPartition, position: int | None, start: int, end: int, policy: str) -> Reset:
    """Return where to continue. ``position`` ``None``: the group has committed nothing.

    ``start`` and ``end``: the first offset that the partition holds, and the one after its last. Only
    offsets that the log has removed count as skipped, and with ``latest`` what that passes over. Raises
    ``FatalError`` for the policy ``error``, with the command that helps.
    """
    if position is not None and start <= position <= end:
        return Reset(position)  # it was a replica behind its leader
    if policy == "error":
        raise FatalError(_refusal(group, at, position, start, end))
    target = end if policy == "latest" else start
    if position is None:
        return Reset(target)
    skipped = []
    if position < start:
        skipped.append(Skipped(at, position, start, "expired"))
    if policy == "latest" and max(position, start) < end:
        skipped.append(Skipped(at, max(position, start), end, "reset"))
    return Reset(target, skipped)


def command(group: str, at: TopicPartition, to: int | str) -> str:
    """The command that sets the offset of a sink's partition."""
    name = group.removeprefix("connect-")
    return f"tieline offsets set {name} --worker FILE --topic {at.topic} --partition {at.partition} --to {to}"


def describe_unreadable(group: str, at: TopicPartition, position: int | None, why: str) -> str:
    """What is said of a batch that this client cannot read, with the fix."""
    offset = "the next offset" if position is None else f"offset {position}"
    return (
        f"{at.topic}-{at.partition} cannot be read: the batch at {offset} is damaged, or larger than this "
        f"client takes: {why}. Raise consumer.override.receive.message.max.bytes if it is too large. To pass "
        f"over it: find the offset after the batch (kafka-dump-log.sh prints its lastOffset), stop the sink, "
        f"{command(group, at, 'OFFSET')}, and start it again"
    )


def _refusal(group: str, at: TopicPartition, position: int | None, start: int, end: int) -> str:
    place = f"{at.topic}-{at.partition}"
    if position is None:
        why = "the group has committed no offset"
    elif position < start:
        why = f"the {start - position} offsets from {position} to {start - 1} have expired"
    else:
        why = f"the position {position} is behind its end"
    holds = f"holds {start} to {end - 1}" if end > start else f"is empty (the next offset is {end})"
    return (
        f"{place} cannot be read: {why}; it {holds}, and auto.offset.reset is error. "
        f"Choose where to continue: stop the sink, {command(group, at, start)}, and start it again"
    )
