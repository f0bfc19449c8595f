"""Transforms (Kafka Connect's SMT) return a record for each record, or ``None`` to filter it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Generic, TypeVar

from tieline.api.config import Config
from tieline.api.record import AnyRecord

C = TypeVar("C", bound=Config)


class Transform(ABC, Generic[C]):
    """Changes or filters records: on the source side before the converter, on the sink side after it.

    1. ``Transform(config)``: before any batch.
    2. ``apply(batch)``: from the task's own thread; a pure function of the batch.
    3. ``stop()``, last: release all resources.
    """

    config_type: ClassVar[type[Config]] = Config

    def __init__(self, config: C) -> None:
        self.config = config

    @abstractmethod
    def apply(self, batch: Sequence[AnyRecord]) -> Sequence[AnyRecord | None]:
        """Return a record for each record, at the same index; ``None`` filters it (counted as filtered).

        Raises ``DataError`` with an index → cause map for records that can never be transformed.
        """

    def stop(self) -> None:
        """Release all resources. Always the last call."""
