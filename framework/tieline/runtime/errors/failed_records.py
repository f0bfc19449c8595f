"""What of a batch is done when some of it failed, and the sentence that names the first failed record."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple, TypeVar

from tieline.api import DataError, RetriableError, TielineError, TopicPartition
from tieline.broker.records import ConsumedRecord
from tieline.runtime.errors.failure_table import Stage
from tieline.runtime.errors.retry_state import StageError

T = TypeVar("T")
R = TypeVar("R")

_CONVERTERS = (Stage.KEY_CONVERTER, Stage.VALUE_CONVERTER)


class Failure(NamedTuple):
    """Why one record of a batch can never be handled, at which stage, and in which class."""

    stage: Stage
    cause: Exception
    raised_by: str = ""


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
    stage: Stage,
    name: str,
    operation: Callable[[Sequence[T]], Sequence[R]],
    batch: Sequence[T],
    *,
    tolerant: bool = False,
) -> tuple[Sequence[R | None], dict[int, Failure]]:
    """Apply ``operation`` to a batch, and again without the records for which it raises a ``DataError``.

    Return a result for each record, ``None`` for a failed one, and the failures by index. ``name`` is the
    class that the operation belongs to. If the error names no record, the batch is halved until one record is
    left. ``tolerant``: an error that tieline does not know, such as a ``KeyError``, is one of a record, too,
    as in Kafka Connect. Raises ``StageError`` for every other error.
    """
    failures: dict[int, Failure] = {}
    good: Sequence[int] = range(len(batch))
    rest = batch
    results: Sequence[R | None] = ()
    while True:
        try:
            results = operation(rest)
            if len(results) != len(rest):
                raise TypeError(f"{name} made {len(results)} values of {len(rest)}")
        except DataError as error:
            rejected = rejected_records(error, len(rest))
            if not rejected:
                return _collect_halves(stage, name, operation, batch, cause_of(error), tolerant)
            failures |= {good[index]: Failure(stage, cause, name) for index, cause in rejected.items()}
            good = [index for index in good if index not in failures]
            rest = [batch[index] for index in good]
        except Exception as error:
            if tolerant and not isinstance(error, TielineError):
                return _collect_halves(stage, name, operation, batch, error, tolerant)
            raise StageError(stage, error) from error
        else:
            break
    if not failures:
        return results, failures
    every: list[R | None] = [None] * len(batch)
    for index, result in zip(good, results, strict=True):
        every[index] = result
    return every, failures


def rejected_records(error: DataError, number: int) -> dict[int, Exception]:
    """Return the causes of an error about a batch of ``number`` records; empty if it is not usable.

    An error that names a record which the batch does not have counts from something else. Nothing that it
    says about the others can be relied on.
    """
    if all(type(index) is int and 0 <= index < number for index in error.failures):
        return dict(error.failures)
    return {}


def cause_of(error: Exception) -> Exception:
    """Return why a single record failed: the cause that a ``DataError`` names, else the error itself."""
    return next(iter(error.failures.values()), error) if isinstance(error, DataError) else error


def _collect_halves(
    stage: Stage,
    name: str,
    operation: Callable[[Sequence[T]], Sequence[R]],
    batch: Sequence[T],
    cause: Exception,
    tolerant: bool,
) -> tuple[Sequence[R | None], dict[int, Failure]]:
    if len(batch) == 1:
        return [None], {0: Failure(stage, cause, name)}
    half = len(batch) // 2
    first, failures = collect_failures(stage, name, operation, batch[:half], tolerant=tolerant)
    second, more = collect_failures(stage, name, operation, batch[half:], tolerant=tolerant)
    return [*first, *second], failures | {half + index: failure for index, failure in more.items()}


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


def fix_for(stage: Stage) -> str:
    """Return how a sentence begins that says what to do about a record that failed at this stage."""
    if stage in _CONVERTERS:  # a transform comes too late for these
        return "Correct the converter's settings"
    if stage is Stage.KAFKA_PRODUCE:
        return "Change the topic's settings, or filter the record with a transform"
    if stage is Stage.SPOOL:
        return "Check the disk"
    return "Repair or remove the record, or filter it with a transform"


def describe_failure(failures: Failures, record_at: Callable[[int], FailedRecord]) -> str:
    """Return the sentence about the first failed record of a batch: stage, record, cause and fix."""
    index = min(failures)
    stage, cause, _ = failures[index]
    record = record_at(index)
    others = f" (and {len(failures) - 1} more in this batch)" if len(failures) > 1 else ""
    skip = f"; or {record.skip}" if record.skip else ""
    return (
        f"{stage.value}: the record {record.name} cannot be handled: {cause}{others}; "
        f"{record.before}. {fix_for(stage)}{skip}"
    )
