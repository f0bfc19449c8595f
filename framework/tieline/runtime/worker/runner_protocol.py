"""The interface of everything that runs in a task's thread."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from tieline.runtime.task.ledger import Counts
from tieline.runtime.task.totals import PartitionView


class Runner(Protocol):
    """One run of a task: built by the factory, run once, and replaced by a new one to run again."""

    @property
    def stats(self) -> Counts:
        """The totals of its ledger since it was built. Any thread may read them."""

    @property
    def lag(self) -> int | None:
        """How many records wait for it; ``None`` if that is unknown. Any thread may read it."""

    @property
    def lag_seconds(self) -> float | None:
        """How many seconds it is behind; ``None`` if that is unknown. Any thread may read it."""

    @property
    def totals(self) -> Mapping[Any, PartitionView]:
        """What the records of each partition became since the count began. Any thread may read it.

        A sink's key is a topic partition, a source's the text of a source partition.
        """

    def run(self) -> None:
        """Run until asked to stop. Raises ``TaskFailedError``; any other error is unexpected."""

    def interrupt(self) -> None:
        """Ask it to stop; return at once. Called from another thread."""
