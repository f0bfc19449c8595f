"""Compute slow answers one at a time, so that fast ones always get processor time."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import TypeVar

from tieline.registry.model import errors
from tieline.registry.model.budget import LONG, QUICK, OverBudgetError, step_limit

T = TypeVar("T")

_MAX_WAITING = 4


class SlowLane:
    """Answers questions within their budgets. Safe for many threads; holds no lock while it computes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._is_taken = False
        self._waiting: deque[threading.Event] = deque()  # a lock alone would not keep the order

    def answer(self, question: Callable[[], T]) -> T:
        """Return the answer at once if `QUICK` steps suffice. Otherwise wait for a turn with `LONG` steps.

        Raises ``RegistryError``: 42209 if these do not suffice either, 503 if too many questions wait.
        """
        try:
            with step_limit(QUICK):
                return question()
        except OverBudgetError:
            pass
        self._enter()
        try:
            with step_limit(LONG):
                return question()
        except OverBudgetError:
            raise errors.too_complex() from None
        finally:
            self._leave()

    def _enter(self) -> None:
        with self._lock:
            if not self._is_taken:
                self._is_taken = True
                return
            if len(self._waiting) >= _MAX_WAITING:
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
