"""Where the records of a source's batch come from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol


class Positions(NamedTuple):
    """Where a batch comes from: each record's source partition, and the offset that each partition reaches.

    ``describe`` names the position of the record with an index, for messages.
    """

    partitions: Sequence[str]
    reached: Mapping[str, str]
    describe: Callable[[int], str] = "record {} of its batch".format


class SavedPositions(Protocol):
    """Where a sender saves positions: a spool."""

    def save(self, reached: Mapping[str, str]) -> None:
        """Note that everything before these positions is acknowledged. Raises ``RetriableError``."""
