"""How fast a backup copies: slowly enough for a busy worker, until waiting would cost it more."""

from __future__ import annotations

import time
from collections.abc import Callable


class RateLimit:
    """Limits the bytes a second. Used by one thread.

    ``rate``: bytes a second, 0 for no limit.
    """

    def __init__(
        self,
        rate: int,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._rate = rate
        self._clock = clock
        self._sleep = sleep
        self._free_at = float("-inf")

    def spend(self, size: int, *, hurry: bool = False) -> None:
        """Wait until this many bytes, which were copied, keep within the rate; not in a ``hurry``."""
        if not self._rate or hurry:
            return
        now = self._clock()
        self._free_at = max(self._free_at, now) + size / self._rate
        if self._free_at > now:
            self._sleep(self._free_at - now)
