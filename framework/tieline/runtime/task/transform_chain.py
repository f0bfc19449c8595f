"""A chain of transforms, applied to a batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tieline.api import AnyRecord, Transform
from tieline.dead_letters.letter import class_name
from tieline.runtime.errors.failed_records import Failure, collect_failures
from tieline.runtime.errors.failure_table import Stage


class TransformChain:
    """A chain of transforms; used by one thread."""

    def __init__(self, chain: Sequence[Transform[Any]], *, tolerant: bool = False) -> None:
        self._chain = chain
        self.tolerant = tolerant
        """Whether an error that a transform or converter did not foresee costs one record, not the task."""

    def apply(
        self, batch: Sequence[AnyRecord]
    ) -> tuple[Sequence[AnyRecord], Sequence[int], dict[int, Failure]]:
        """Transform a batch.

        Return the records that are left, the index in the batch of each, and by such indexes the failures of
        records that a transform rejects. Raises ``StageError``.
        """
        live: Sequence[AnyRecord] = batch
        indexes: Sequence[int] = range(len(batch))
        failures: dict[int, Failure] = {}
        for transform in self._chain:
            name = class_name(type(transform))
            results, failed = collect_failures(
                Stage.TRANSFORMATION, name, transform.apply, live, tolerant=self.tolerant
            )
            failures |= {indexes[index]: failure for index, failure in failed.items()}
            kept = [(i, record) for i, record in zip(indexes, results, strict=True) if record is not None]
            indexes, live = [index for index, _ in kept], [record for _, record in kept]
        return live, indexes, failures

    def stop(self) -> None:
        """Stop every transform. Called once, at the end of the task."""
        for transform in self._chain:
            transform.stop()
