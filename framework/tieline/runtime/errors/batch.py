"""What of a batch is done when some of it failed, and the sentence that says which record is to blame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tieline.api import RetriableError, TopicPartition
from tieline.broker.port import ConsumedRecord
from tieline.runtime.errors.table import Stage


def precedes_failure(batch: Sequence[ConsumedRecord], failures: Mapping[int, Exception]) -> list[bool]:
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


def written_despite(batch: Sequence[ConsumedRecord], error: Exception) -> list[bool]:
    """Whether each record of a batch that ended with this error was written.

    An error that names partitions which the batch has not (those of renamed topics, say) is not understood:
    nothing is taken for written by it.
    """
    if not isinstance(error, RetriableError):
        return [False] * len(batch)
    places = [TopicPartition(record.topic, record.partition) for record in batch]
    named = error.partitions if error.partitions is not None and error.partitions <= set(places) else None
    return [
        (named is not None and at not in named) or record.offset < error.reached.get(at, 0)
        for at, record in zip(places, batch, strict=True)
    ]


def describe_failure(
    stage: Stage, record: ConsumedRecord, cause: Exception, failures: int, connector: str
) -> str:
    """What a person reads first: stage, record, cause, and the way out."""
    more = f" (and {failures - 1} more in this batch)" if failures > 1 else ""
    where = f"{record.topic}-{record.partition}@{record.offset}"
    if stage in (Stage.KEY_CONVERTER, Stage.VALUE_CONVERTER):  # a transform comes too late for these
        way_out = "Correct the converter's settings"
    else:
        way_out = "Repair or remove the record, or filter it with a transform"
    pass_over = (
        f"tieline offsets set {connector} --worker FILE --topic {record.topic} "
        f"--partition {record.partition} --to {record.offset + 1}"
    )
    return (
        f"{stage.value}: the record {where} cannot be handled: {cause}{more}; everything before it "
        f"is written and committed. {way_out}; or stop the worker and pass over the record: {pass_over}"
    )
