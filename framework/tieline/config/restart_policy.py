"""How and how often a failed task is restarted; pure."""

from __future__ import annotations

from typing import NamedTuple


class RestartPolicy(NamedTuple):
    """The restarts of a task that failed; times in seconds.

    The delay before a restart begins at ``first_delay`` and doubles up to ``max_delay``. After ``budget``
    restarts within ``window`` the breaker opens for ``breaker`` at least, -1: until an operator closes it.
    A task that ran for ``health``, or that delivered a record, is healthy again.
    """

    enabled: bool = True
    first_delay: float = 1.0
    max_delay: float = 600.0
    budget: int = 10
    window: float = 3600.0
    breaker: float = 1800.0
    health: float = 300.0
