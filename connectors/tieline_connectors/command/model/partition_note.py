"""What the ledger knows of its partition as a whole, beside the entries of commands; pure.

It stands in the changelog under a key that no command can have (a command's id is printable), as an entry
at rest.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, TypeAlias

from tieline_connectors.command.model.clock import Seen

KEY = "\n"
_MOST_SPANS = 16

Spans: TypeAlias = "tuple[tuple[int, int], ...]"
"""Times from … to, both inside, in order and apart from each other."""


class Note(NamedTuple):
    """``forgotten``: when commands were issued that the ledger has forgotten; no other was issued then that
    may be taken for a new one. ``boot``, ``clock``: what was believed last, where it was found out anew.
    ``partitions``: how many the topic had, 0: one, as far as is known. Microseconds.
    """

    forgotten: Spans = ()
    boot: str = ""
    clock: Seen | None = None
    partitions: int = 0

    def has_forgotten(self, issued_at: int) -> bool:
        """Whether a command of that time may be one of those."""
        return any(start <= issued_at <= end for start, end in self.forgotten)

    def to_value(self) -> dict[str, Any]:
        """Data for the schema ``command.LedgerEntry``."""
        text = json.dumps(self._asdict(), separators=(",", ":"))
        return {**_EMPTY, "command": text}

    @staticmethod
    def from_value(value: Mapping[str, Any] | None) -> Note:
        """From data of that schema, none: there is no note. Raises ``ValueError``."""
        if value is None:
            return Note()
        try:
            found = json.loads(value["command"])
            clock = found.pop("clock")
            spans = tuple((int(start), int(end)) for start, end in found.pop("forgotten"))
            return Note(forgotten=spans, clock=None if clock is None else Seen(*clock), **found)
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


def with_times(spans: Spans, times: Iterable[int], *more: tuple[int, int]) -> Spans:
    """Spans that hold these times, and ``more``, too; at most so many, those that lie closest are made one.

    So a few commands of a time far ahead (a wrong clock accepted and forgot them) bar that time, and not
    all that lies before it.
    """
    found = sorted([*spans, *more, *((time, time) for time in times)])
    merged: list[tuple[int, int]] = []
    for start, end in found:
        if merged and start <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        else:
            merged.append((start, end))
    if len(merged) > _MOST_SPANS:
        gaps = sorted(range(1, len(merged)), key=lambda i: merged[i][0] - merged[i - 1][1], reverse=True)
        cuts = sorted(gaps[: _MOST_SPANS - 1])
        edges = zip([0, *cuts], [*cuts, len(merged)], strict=True)
        merged = [(merged[first][0], merged[last - 1][1]) for first, last in edges]
    return tuple(merged)
