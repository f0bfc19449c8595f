"""How a task waits out an outage: one retry state for each, and the errors that end it."""

from __future__ import annotations

import logging
import random

from tieline.api import AccessDeniedError, TielineError
from tieline.config.retry_policy import RetryPolicy
from tieline.runtime.errors.table import Retry, Stage, Stop, decide
from tieline.runtime.task.clock import Clock, Counters
from tieline.runtime.task.connections import Connections

log = logging.getLogger(__name__)

_BEHIND = {
    Stage.SPOOL: "the spool",
    Stage.KEY_CONVERTER: "the schema registry",
    Stage.VALUE_CONVERTER: "the schema registry",
    Stage.KAFKA_PRODUCE: "the broker",
    Stage.KAFKA_CONSUME: "the broker",
    Stage.OFFSET_COMMIT: "the broker",
}
"""What is not there when a stage must wait; at all others it is what the connector is for."""


class StageError(Exception):
    """An error with the stage of the journey in which it happened."""

    def __init__(self, stage: Stage, error: Exception) -> None:
        super().__init__(f"{stage.value}: {error}")
        self.stage = stage
        self.error = error


class TaskFailedError(TielineError):
    """The task stops and its state is FAILED; the message is what a person reads first."""


class StopRequested(Exception):
    """Not an error: leave what you are doing, the task was asked to stop while it waited."""


class RetryState:
    """One outage from its first error to its end: asks the failure table, and logs once at each end."""

    def __init__(
        self,
        stage: Stage,
        policy: RetryPolicy,
        clock: Clock,
        connections: Connections,
        counters: Counters,
    ) -> None:
        self._stage = stage
        self._policy = policy
        self._clock = clock
        self._connections = connections
        self._counters = counters
        self._attempt = 0
        self._since = 0.0
        self._to: set[str] = set()

    def after(self, error: Exception) -> float:
        """Seconds until the next attempt. Raises ``TaskFailedError`` when the table says stop."""
        stage = self._stage
        if isinstance(error, StageError):
            stage, error = error.stage, error.error
        now = self._clock.now()
        if self._attempt == 0:
            self._since = now
        decision = decide(
            stage,
            error,
            attempt=self._attempt,
            waited=now - self._since,
            policy=self._policy,
            jitter=random.random(),
        )
        if isinstance(decision, Stop):
            raise TaskFailedError(decision.reason) from error
        assert isinstance(decision, Retry)
        if self._attempt == 0:
            log.log(
                logging.ERROR if isinstance(error, AccessDeniedError) else logging.WARNING,
                "unavailable, waiting: %s",
                error,
                extra={"stage": stage.value, "retry_after_s": round(decision.after, 2)},
            )
        to = f"{_BEHIND.get(stage, 'the external system')} ({stage.value})"
        self._to.add(to)
        self._connections.lost(to, str(error), said=True)
        self._attempt += 1
        self._counters.add("retries")
        return decision.after

    def progressed(self) -> None:
        """Part of it worked: the outage continues, and is counted from now."""
        if self._attempt:
            self._attempt = 1
            self._since = self._clock.now()

    def over(self) -> None:
        """It worked; the next error begins a new outage."""
        if self._attempt:
            waited = round(self._clock.now() - self._since, 1)
            log.info("available again", extra={"stage": self._stage.value, "waited_s": waited})
            for to in self._to:
                self._connections.found(to, said=True)
            self._to.clear()
        self._attempt = 0
