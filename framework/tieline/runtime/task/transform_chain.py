"""A chain of transforms, applied to a batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tieline.api import AnyRecord, DataError, Transform
from tieline.runtime.errors.retry import StageError
from tieline.runtime.errors.table import Stage


class TransformChain:
    """A chain of transforms; used by one thread."""

    def __init__(self, chain: Sequence[Transform[Any]]) -> None:
        self._chain = chain

    def apply(self, batch: Sequence[AnyRecord]) -> tuple[Sequence[AnyRecord], Sequence[int]]:
        """What is left of the batch, and the index in the batch of each. Raises ``StageError``."""
        live: Sequence[AnyRecord] = batch
        indexes: Sequence[int] = range(len(batch))
        for transform in self._chain:
            try:
                out = transform.apply(live)
            except DataError as error:
                raise StageError(Stage.TRANSFORMATION, with_batch_indexes(error, indexes)) from error
            except Exception as error:
                raise StageError(Stage.TRANSFORMATION, error) from error
            if len(out) != len(live):
                name = type(transform).__name__
                raise StageError(
                    Stage.TRANSFORMATION, TypeError(f"{name} made {len(out)} records of {len(live)}")
                )
            kept = [(index, record) for index, record in zip(indexes, out, strict=True) if record is not None]
            indexes, live = [index for index, _ in kept], [record for _, record in kept]
        return live, indexes

    def stop(self) -> None:
        """Called once, at the end of the task."""
        for transform in self._chain:
            transform.stop()


def with_batch_indexes(error: DataError, indexes: Sequence[int]) -> DataError:
    """The same failures with the indexes of the whole batch."""
    return DataError({indexes[index]: cause for index, cause in error.failures.items()})
