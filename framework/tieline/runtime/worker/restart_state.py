"""The restarts of one task, or of a whole connector: asks the policy about each failure."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, NamedTuple

from tieline.config.restart_policy import RestartPolicy
from tieline.runtime.task.clock import Clock
from tieline.runtime.worker.restarts import (
    BreakerOpen,
    History,
    RestartAt,
    after_run,
    decide,
    next_attempt,
    restarted,
)
from tieline.runtime.worker.states import State


class _Failed(NamedTuple):
    """What was decided about a failure; the times of the next attempt are monotonic and of day."""

    state: State
    due: float | None
    due_ms: int | None
    breaker_open: bool


class RestartState:
    """Remembers the restarts of one task, and when the next one is due.

    One thread at a time changes it: the task's while it runs, the worker's after that. Any thread may read.
    ``jitter`` returns random numbers in [0, 1).
    """

    def __init__(
        self, policy: RestartPolicy, clock: Clock, jitter: Callable[[], float] = random.random
    ) -> None:
        self._policy = policy
        self._clock = clock
        self._jitter = jitter
        self._history = History()
        self._started: float | None = None
        self._failed: _Failed | None = None

    @property
    def state(self) -> State | None:
        """FAILED or RESTARTING after a failure; ``None`` if nothing has failed."""
        return None if self._failed is None else self._failed.state

    @property
    def due(self) -> float | None:
        """When the next restart is due, on the clock; ``None`` if none is planned."""
        return None if self._failed is None else self._failed.due

    def begin(self) -> None:
        """Note that a run begins."""
        self._started, self._failed = self._clock.now(), None

    def fail(self, restart_helps: bool, last_record: float | None) -> State:
        """Decide about a run that has failed now; return the state of the task.

        ``last_record``: when its last record was handled, end to end.
        """
        now = self._clock.now()
        self._history = history = self._after_run(now, last_record)
        decision = decide(restart_helps, now=now, jitter=self._jitter(), history=history, policy=self._policy)
        due = next_attempt(decision)
        self._started = None
        self._failed = _Failed(
            "RESTARTING" if isinstance(decision, RestartAt) else "FAILED",
            due,
            None if due is None else self._clock.wall_ms() + round((due - now) * 1000),
            isinstance(decision, BreakerOpen),
        )
        return self._failed.state

    def restart(self) -> None:
        """Note that the task is restarted now."""
        self._history = restarted(self._history, now=self._clock.now(), policy=self._policy)
        self._failed = None

    def close_breaker(self) -> None:
        """Forget all restarts, since an operator asks for another one."""
        self._history = History()

    def stats(self, last_record: float | None) -> dict[str, Any]:
        """Return ``attempts`` since the task was healthy, and after a failure what comes next.

        ``next_attempt_ms``: ms since 1970, or ``None`` if only an operator restarts it. ``breaker``: whether
        it is open or closed.
        """
        stats: dict[str, Any] = {"attempts": self._after_run(self._clock.now(), last_record).attempts}
        failed = self._failed
        if failed is not None:
            stats["next_attempt_ms"] = failed.due_ms
            stats["breaker"] = "open" if failed.breaker_open else "closed"
        return stats

    def _after_run(self, now: float, last_record: float | None) -> History:
        history, started = self._history, self._started
        if started is None:  # it has not run since its last failure
            return history
        return after_run(history, started=started, now=now, last_record=last_record, policy=self._policy)
