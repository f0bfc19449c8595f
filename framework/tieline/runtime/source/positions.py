"""Where the records of a source's batch come from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

from tieline.runtime.task.totals import Ended


class Positions(NamedTuple):
    """Where a batch comes from: each record's source partition, and the offset that each partition reaches.

    ``describe`` names the position of the record with an index, for messages.
    """

    partitions: Sequence[str]
    reached: Mapping[str, str]
    describe: Callable[[int], str] = "record {} of its batch".format


class SavedPositions(Protocol):
    """Where a sender saves positions: a spool."""

    def save(self, reached: Mapping[str, str], ended: Mapping[str, Ended]) -> None:
        """Note that everything before these positions is acknowledged. Raises ``RetriableError``.

        ``ended``: what became of it since the sender began, by source partition.
        """
