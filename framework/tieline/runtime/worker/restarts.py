"""When a failed task is restarted: backoff, a budget of restarts, and a circuit breaker. Pure.

    failed ──▶ restart_helps?  no ──▶ GiveUp: only an operator helps
                   │ yes
                   ▼
               budget left in the window?  no ──▶ BreakerOpen: until its timer or an operator closes it
                   │ yes
                   ▼
               RestartAt: 1 s, doubled with each restart since the task was healthy, less a random part

Health resets the delay, not the budget: a task that delivers a record and fails again at each restart would
otherwise restart for ever, and deliver again each time what it had not committed. So there are never more
than ``budget`` restarts within a window, whatever happens between them; only an operator starts a new count.
"""

from __future__ import annotations

from typing import NamedTuple

from tieline.config.restart_policy import RestartPolicy
from tieline.runtime.errors.failure_table import backoff


class History(NamedTuple):
    """The restarts of a task.

    ``times``: when it was restarted, oldest first; older ones than a window are dropped. ``attempts``: the
    number of restarts since the task was healthy.
    """

    times: tuple[float, ...] = ()
    attempts: int = 0


class RestartAt(NamedTuple):
    """Restart the task at this time."""

    time: float


class BreakerOpen(NamedTuple):
    """The budget is used up: restart at ``until``, or if that is ``None``, when an operator says so."""

    until: float | None


class GiveUp(NamedTuple):
    """Do not restart: a new run would fail as this one did, or restarts are disabled."""


Decision = RestartAt | BreakerOpen | GiveUp


def decide(
    restart_helps: bool, *, now: float, jitter: float, history: History, policy: RestartPolicy
) -> Decision:
    """Return what to do about a task that has failed at ``now``. ``jitter``: a random number in [0, 1)."""
    if not policy.enabled or not restart_helps:
        return GiveUp()
    at = now + backoff(policy, history.attempts, jitter)
    if len(history.times) < policy.budget:
        return RestartAt(at)
    free = history.times[-policy.budget] + policy.window  # from then on, one more fits into the window
    if free <= at:
        return RestartAt(at)
    return BreakerOpen(None if policy.breaker < 0 else max(now + policy.breaker, free))


def next_attempt(decision: Decision) -> float | None:
    """Return when the task is restarted; ``None`` if only an operator restarts it."""
    if isinstance(decision, RestartAt):
        return decision.time
    return decision.until if isinstance(decision, BreakerOpen) else None


def restarted(history: History, *, now: float, policy: RestartPolicy) -> History:
    """Return the history after a restart at ``now``."""
    recent = tuple(time for time in history.times if time + policy.window > now)
    return History((*recent, now), history.attempts + 1)


def after_run(
    history: History, *, started: float, now: float, last_record: float | None, policy: RestartPolicy
) -> History:
    """Return the history after a run from ``started`` to ``now``: without attempts if the task was healthy.

    ``last_record``: when a record was handled last, end to end; it may be before ``started``.
    """
    worked = last_record is not None and last_record >= started
    return history._replace(attempts=0) if worked or now - started >= policy.health else history
