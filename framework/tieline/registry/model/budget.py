"""How much one request may compute: steps that are counted, so that the answer is the same on any machine.

A step is a type, field, symbol or value that is read, or a pair of types that is compared: one to three
microseconds. Results are remembered by those who compute them; what is remembered costs no step.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

QUICK = 10_000
"""Enough for every ordinary schema; a request that needs more waits for its turn (see ``lane``)."""
LONG = 800_000
"""About two seconds: enough for two versions of a schema of 1 MB, which has some 30,000 fields."""


class OverBudget(Exception):
    """It would take more steps than the request has."""


class Budget:
    """The steps that are left."""

    def __init__(self, steps: int) -> None:
        self._left = steps

    def spend(self, steps: int = 1) -> None:
        """Raises ``OverBudget``."""
        self._left -= steps
        if self._left < 0:
            raise OverBudget


_current: ContextVar[Budget | None] = ContextVar("registry budget", default=None)


def current() -> Budget:
    """That of the caller's request; what is computed outside any has `LONG`."""
    return _current.get() or Budget(LONG)


@contextmanager
def limited(steps: int) -> Iterator[None]:
    """Inside, all that is computed has these steps together. With 0, only what is remembered is answered."""
    token = _current.set(Budget(steps))
    try:
        yield
    finally:
        _current.reset(token)
