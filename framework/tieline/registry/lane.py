"""Where what takes long is computed: one request at a time, so that all others have the processor too."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

from tieline.registry import errors
from tieline.registry.budget import LONG, QUICK, OverBudget, limited

T = TypeVar("T")

_MOST_WAITING = 4


class Lane:
    """Answers questions within their budgets. Safe for many threads; nothing else is locked meanwhile."""

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._places = threading.BoundedSemaphore(1 + _MOST_WAITING)

    def answer(self, question: Callable[[], T]) -> T:
        """At once with `QUICK` steps; what needs more is asked again with `LONG`, when it is its turn.

        Raises ``RegistryError``: 42209 where that is not enough either, 503 where too many wait for a turn.
        """
        try:
            with limited(QUICK):
                return question()
        except OverBudget:
            pass
        if not self._places.acquire(blocking=False):
            raise errors.busy()
        try:
            with self._turn, limited(LONG):
                return question()
        except OverBudget:
            raise errors.too_complex() from None
        finally:
            self._places.release()
