"""What of a batch is done when some of it failed, and the sentence that names the first failed record."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple, TypeVar

from tieline.api import DataError, RetriableError, TopicPartition
from tieline.broker.records import ConsumedRecord
from tieline.runtime.errors.failure_table import Stage
from tieline.runtime.errors.retry_state import StageError

T = TypeVar("T")
R = TypeVar("R")

_CONVERTERS = (Stage.KEY_CONVERTER, Stage.VALUE_CONVERTER)


class Failure(NamedTuple):
    """Why one record of a batch can never be handled, and at which stage."""

    stage: Stage
    cause: Exception


Failures = Mapping[int, Failure]
"""By the index in the batch."""


class FailedRecord(NamedTuple):
    """The record that a sentence is about.

    ``name``: what identifies it. ``before``: what became of the records before it. ``skip``: how an
    operator passes over it, empty if that is impossible.
    """

    name: str
    before: str
    skip: str = ""


def collect_failures(
    stage: Stage, name: str, operation: Callable[[Sequence[T]], Sequence[R]], batch: Sequence[T]
) -> tuple[Sequence[R | None], dict[int, Failure]]:
    """Apply ``operation`` to a batch, and again without the records for which it raises a ``DataError``.

    Return a result for each record, ``None`` for a failed one, and the failures by index. ``name`` is what
    the operation belongs to. Raises ``StageError`` for every other error.
    """
    failures: dict[int, Failure] = {}
    good: Sequence[int] = range(len(batch))
    rest = batch
    results: Sequence[R] = ()
    while True:
        try:
            results = operation(rest)
            if len(results) != len(rest):
                raise TypeError(f"{name} made {len(results)} values of {len(rest)}")
        except DataError as error:
            rejected = {good[i]: cause for i, cause in error.failures.items() if 0 <= i < len(good)}
            if not rejected:
                raise StageError(stage, error) from error
            failures |= {index: Failure(stage, cause) for index, cause in rejected.items()}
            good = [index for index in good if index not in rejected]
            rest = [batch[index] for index in good]
        except Exception as error:
            raise StageError(stage, error) from error
        else:
            break
    if not failures:
        return results, failures
    every: list[R | None] = [None] * len(batch)
    for index, result in zip(good, results, strict=True):
        every[index] = result
    return every, failures


def precedes_failure(batch: Sequence[ConsumedRecord], failures: Collection[int]) -> list[bool]:
    """Return for each record whether it stands before the first failed one of its partition."""
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
    """Return for each record of a batch that ended with this error whether it was written.

    If the error names a partition that the batch does not have, such as one of a renamed topic, it is not
    understood, and no record counts as written because of it.
    """
    if not isinstance(error, RetriableError):
        return [False] * len(batch)
    partitions = [TopicPartition(record.topic, record.partition) for record in batch]
    understood = error.partitions is not None and error.partitions <= set(partitions)
    named = error.partitions if understood else None
    return [
        (named is not None and partition not in named) or record.offset < error.reached.get(partition, 0)
        for partition, record in zip(partitions, batch, strict=True)
    ]


def describe_failure(failures: Failures, record_at: Callable[[int], FailedRecord]) -> str:
    """Return the sentence about the first failed record of a batch: stage, record, cause and fix."""
    index = min(failures)
    stage, cause = failures[index]
    record = record_at(index)
    others = f" (and {len(failures) - 1} more in this batch)" if len(failures) > 1 else ""
    if stage in _CONVERTERS:  # a transform comes too late for these
        fix = "Correct the converter's settings"
    elif stage is Stage.KAFKA_PRODUCE:
        fix = "Change the topic's settings, or filter the record with a transform"
    else:
        fix = "Repair or remove the record, or filter it with a transform"
    skip = f"; or {record.skip}" if record.skip else ""
    return (
        f"{stage.value}: the record {record.name} cannot be handled: {cause}{others}; "
        f"{record.before}. {fix}{skip}"
    )
