"""What of a batch is done when some of it failed, and the sentence that says which record is to blame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tieline.api import Retriable, TopicPartition
from tieline.broker.port import ConsumedRecord
from tieline.runtime.failure import Stage


def before_failure(batch: Sequence[ConsumedRecord], failures: Mapping[int, Exception]) -> list[bool]:
    """Whether each record stands before the first failed one of its partition."""
    if not failures:
        return [True] * len(batch)
    stopped: set[tuple[str, int]] = set()
    out: list[bool] = []
    for index, record in enumerate(batch):
        if index in failures:
            stopped.add((record.topic, record.partition))
        out.append((record.topic, record.partition) not in stopped)
    return out


def was_written(record: ConsumedRecord, error: Exception) -> bool:
    """Whether a record of a batch that ended with this error was written nevertheless."""
    if not isinstance(error, Retriable):
        return False
    partition = TopicPartition(record.topic, record.partition)
    if error.partitions is not None and partition not in error.partitions:
        return True
    return record.offset < error.reached.get(partition, 0)


def sentence_of(stage: Stage, record: ConsumedRecord, cause: Exception, failures: int) -> str:
    """What a person reads first: stage, record, cause, and the way out."""
    more = f" (and {failures - 1} more in this batch)" if failures > 1 else ""
    where = f"{record.topic}-{record.partition}@{record.offset}"
    if stage in (Stage.KEY_CONVERTER, Stage.VALUE_CONVERTER):  # a transform comes too late for these
        way_out = "Correct the converter's settings, or commit an offset behind it for the sink's group"
    else:
        way_out = "Repair or remove the record, or filter it with a transform"
    return (
        f"{stage.value}: the record {where} cannot be handled: {cause}{more}; everything before it "
        f"is written and committed. {way_out}"
    )
