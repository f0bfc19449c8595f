"""The ledger of a replay, and its rate. Pure but for the clock."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from tieline.runtime.task.clock import Clock

_MAX_BATCH = 100


@dataclass
class ReplayLedger:
    """What became of the letters of a job: selected = delivered + filtered + again + remaining.

    ``delivered`` counts what a sink has committed, which includes what its transforms filter. ``waiting``:
    written for a sink that has not handled it yet. ``refused``: letters that cannot be replayed, by reason;
    they are not selected.
    """

    selected: int = 0
    delivered: int = 0
    filtered: int = 0
    again: int = 0
    waiting: int = 0
    refused: Counter[str] = field(default_factory=Counter)

    @property
    def remaining(self) -> int:
        """What was not replayed yet, or waits for its sink."""
        return self.selected - self.delivered - self.filtered - self.again

    @property
    def done(self) -> int:
        """What needs nothing more from the job itself."""
        return self.delivered + self.filtered + self.again + self.waiting

    def counts(self) -> dict[str, int]:
        """Return the numbers by their names."""
        return {
            "replayed": self.selected,
            "delivered": self.delivered,
            "filtered": self.filtered,
            "dead_lettered_again": self.again,
            "remaining": self.remaining,
            "waiting": self.waiting,
            "refused": sum(self.refused.values()),
        }


class Pace:
    """At most ``rate`` letters a second; 0 is without a limit. Used by one thread."""

    def __init__(self, rate: float, clock: Clock) -> None:
        self._rate = rate
        self._clock = clock
        self._due = clock.now()

    @property
    def batch(self) -> int:
        """How many letters are written at once."""
        return _MAX_BATCH if not self._rate else max(1, min(_MAX_BATCH, int(self._rate / 2)))

    def after(self, number: int) -> float:
        """Return how many seconds to wait after so many letters."""
        if not self._rate:
            return 0.0
        now = self._clock.now()
        self._due = max(self._due, now) + number / self._rate
        return self._due - now
