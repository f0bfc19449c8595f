"""Limit how much one request may compute. Steps are counted, so the answer is the same on any machine.

A step is a type, field, symbol or value that is read, or a pair of types that is compared. It takes one to
three microseconds. Functions that cache their results count no step for a cached one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

QUICK = 10_000
"""Enough for every ordinary schema. A request that needs more waits for its turn in the slow lane."""
LONG = 800_000
"""About two seconds: enough for two versions of a schema of 1 MB, which has some 30,000 fields."""


class OverBudgetError(Exception):
    """A computation would take more steps than its request has."""


class Budget:
    """The steps that a request has left."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def spend(self, steps: int = 1) -> None:
        """Subtract steps. Raises ``OverBudgetError`` if there are not enough."""
        self.steps -= steps
        if self.steps < 0:
            raise OverBudgetError


_current: ContextVar[Budget | None] = ContextVar("registry budget", default=None)


def current_budget() -> Budget:
    """Return the budget of the caller's request. Outside a request it is a new one with `LONG` steps."""
    return _current.get() or Budget(LONG)


@contextmanager
def step_limit(steps: int) -> Iterator[None]:
    """Give everything that is computed inside this many steps together.

    With 0 steps, only cached results are available.
    """
    token = _current.set(Budget(steps))
    try:
        yield
    finally:
        _current.reset(token)
