"""Transforms (Kafka Connect's SMT): a batch in, as many out, none where a record is filtered."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Generic, TypeVar

from tieline.api.config import Config
from tieline.api.record import AnyRecord

C = TypeVar("C", bound=Config)


class Transform(ABC, Generic[C]):
    """Changes records on their way, on the source side before the converter, on the sink side after it.

    1. ``start(config)``: once, before any batch.
    2. ``apply(batch)``: from the task's own thread; a pure function of the batch.
    3. ``stop()``: once, at the end.
    """

    config_type: ClassVar[type[Config]] = Config

    def start(self, config: C) -> None:
        """Called once, before any batch."""

    @abstractmethod
    def apply(self, batch: Sequence[AnyRecord]) -> Sequence[AnyRecord | None]:
        """A record for each record, at the same index; none filters it (counted as filtered).

        Raises ``DataError(index → cause)`` for records that can never be transformed.
        """

    def stop(self) -> None:
        """Called once, at the end."""
