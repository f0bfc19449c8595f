"""Where what takes long is computed: one request at a time, so that all others have the processor too."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import TypeVar

from tieline.registry.model import errors
from tieline.registry.model.budget import LONG, QUICK, OverBudget, limited

T = TypeVar("T")

_MOST_WAITING = 4


class Lane:
    """Answers questions within their budgets. Safe for many threads; nothing else is locked meanwhile."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._is_taken = False
        self._waiting: deque[threading.Event] = deque()  # a lock would let the last one in first

    def answer(self, question: Callable[[], T]) -> T:
        """At once with `QUICK` steps; what needs more is asked again with `LONG`, when it is its turn.

        Raises ``RegistryError``: 42209 where that is not enough either, 503 where too many wait for a turn.
        """
        try:
            with limited(QUICK):
                return question()
        except OverBudget:
            pass
        self._enter()
        try:
            with limited(LONG):
                return question()
        except OverBudget:
            raise errors.too_complex() from None
        finally:
            self._leave()

    def _enter(self) -> None:
        with self._lock:
            if not self._is_taken:
                self._is_taken = True
                return
            if len(self._waiting) >= _MOST_WAITING:
                raise errors.busy()
            turn = threading.Event()
            self._waiting.append(turn)
        turn.wait()

    def _leave(self) -> None:
        with self._lock:
            if self._waiting:
                self._waiting.popleft().set()
            else:
                self._is_taken = False
