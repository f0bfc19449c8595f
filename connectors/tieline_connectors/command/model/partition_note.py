"""What the ledger knows of its partition as a whole, beside the entries of commands; pure.

The changelog has it under a key that no command can have, since a command's id is printable. It has the form
of an entry that is finished.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, TypeAlias

from tieline_connectors.command.model.clock import BelievedClock

KEY = "\n"
_MAX_SPANS = 16

Spans: TypeAlias = "tuple[tuple[int, int], ...]"
"""Times from … to, both included, in order and separate."""


class PartitionNote(NamedTuple):
    """What the ledger knows beside its entries; times in microseconds.

    ``forgotten``: the issue times of commands that the ledger has forgotten; a command issued then is not
    accepted as new. ``boot``, ``clock``: the clock of the last owner (`Now.clock_to_store`). ``partitions``:
    how many the topic had, 0 if unknown (then one). ``restored_at``: the last restore from a backup that this
    note takes into account, 0 if none. ``uncertain``: the number of the ledger's last write before it; -1 if
    none. What an entry up to there says may be older than what was done.
    """

    forgotten: Spans = ()
    boot: str = ""
    clock: BelievedClock | None = None
    partitions: int = 0
    restored_at: int = 0
    uncertain: int = -1

    def has_forgotten(self, issued_at: int) -> bool:
        """Return whether a command of that issue time may have been forgotten."""
        return any(start <= issued_at <= end for start, end in self.forgotten)

    def to_value(self) -> dict[str, Any]:
        """Return data for the schema ``command.LedgerEntry``."""
        fields = self._asdict()
        if not self.restored_at:  # so that earlier versions can read it
            del fields["restored_at"], fields["uncertain"]
        text = json.dumps(fields, separators=(",", ":"))
        return {**_EMPTY, "command": text}

    @staticmethod
    def from_value(value: Mapping[str, Any] | None) -> PartitionNote:
        """Return the note of data of that schema; ``None``: there is none yet. Raises ``ValueError``."""
        if value is None:
            return PartitionNote()
        try:
            fields = json.loads(value["command"])
            clock = fields.pop("clock")
            spans = tuple((int(start), int(end)) for start, end in fields.pop("forgotten"))
            return PartitionNote(
                forgotten=spans, clock=None if clock is None else BelievedClock(*clock), **fields
            )
        except (TypeError, KeyError, AttributeError, RecursionError) as error:
            raise ValueError(f"not a note of the ledger: {error}") from None


_EMPTY: Mapping[str, Any] = {
    "command_id": KEY,
    "digest": "",
    "state": "ENDED",
    "received_at": 0,
    "deadline": 0,
    "started_at": None,
    "ended_at": None,
    "result": None,
    "hold": "NONE",
    "hold_until": None,
    "reverting_at": None,
    "stored_at": 0,
    "boot": None,
    "clock": None,
}


def add_times(spans: Spans, times: Iterable[int], *others: tuple[int, int]) -> Spans:
    """Return spans with these times and the other spans added; merge the closest if there are too many.

    So a few commands of a time far ahead, which a wrong clock accepted, block that time only, and not all
    time before it.
    """
    unmerged = sorted([*spans, *others, *((time, time) for time in times)])
    merged: list[tuple[int, int]] = []
    for start, end in unmerged:
        if merged and start <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        else:
            merged.append((start, end))
    if len(merged) > _MAX_SPANS:
        gaps = sorted(range(1, len(merged)), key=lambda i: merged[i][0] - merged[i - 1][1], reverse=True)
        cuts = sorted(gaps[: _MAX_SPANS - 1])
        edges = zip([0, *cuts], [*cuts, len(merged)], strict=True)
        merged = [(merged[first][0], merged[last - 1][1]) for first, last in edges]
    return tuple(merged)
