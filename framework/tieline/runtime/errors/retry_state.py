"""How a task waits out outages, and the errors that end it."""

from __future__ import annotations

import logging
import random

from tieline.api import AccessDeniedError, TielineError
from tieline.config.retry_policy import RetryPolicy
from tieline.runtime.errors.failure_table import Stage, Stop, decide
from tieline.runtime.task.clock import Clock, Counters
from tieline.runtime.task.connections import Connections

log = logging.getLogger(__name__)

_QUIET = 60.0
"""Seconds without an error after which an outage counts as over, although nothing proves it."""

_BEHIND = {
    Stage.SPOOL: "the spool",
    Stage.KEY_CONVERTER: "the schema registry",
    Stage.VALUE_CONVERTER: "the schema registry",
    Stage.KAFKA_PRODUCE: "the broker",
    Stage.KAFKA_CONSUME: "the broker",
    Stage.OFFSET_COMMIT: "the broker",
}
"""What is unavailable when a stage must wait; at all other stages it is the connector's external system."""


class StageError(Exception):
    """An error with the stage of the journey in which it happened."""

    def __init__(self, stage: Stage, error: Exception) -> None:
        super().__init__(f"{stage.value}: {error}")
        self.stage = stage
        self.error = error


class TaskFailedError(TielineError):
    """The task stops and its state is FAILED; the message is what a person reads first.

    ``unexpected``: the exception that the connector did not handle, if there is one; its traceback is kept.
    ``restart_helps``: whether a new run of the task may succeed although no operator has changed anything.
    It is false if the same run would only be repeated: a record that fails again, wrong settings, a fence.
    """

    def __init__(
        self, message: str, *, unexpected: BaseException | None = None, restart_helps: bool = True
    ) -> None:
        super().__init__(message)
        self.unexpected = unexpected
        self.restart_helps = restart_helps


class StopRequestedError(Exception):
    """The task was asked to stop while it waited; what it was doing is abandoned."""


class RetryState:
    """Asks the failure table about each error at one stage, and logs when an outage begins and ends."""

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
        self._since = 0.0  # of the errors that count for errors.retry.timeout
        self._begin: float | None = None  # of the outage
        self._quiet_since: float | None = None
        self._systems: set[str] = set()

    def after(self, error: Exception) -> float:
        """Seconds until the next attempt. Raises ``TaskFailedError`` when the table says stop."""
        stage = self._stage
        if isinstance(error, StageError):
            stage, error = error.stage, error.error
        now = self._clock.now()
        if self._quiet_since is not None:
            self._attempt, self._quiet_since = 0, None
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
            unexpected = error if decision.unexpected else None
            raise TaskFailedError(
                decision.reason, unexpected=unexpected, restart_helps=decision.restart_helps
            ) from error
        if self._begin is None:
            self._begin = now
            log.log(
                logging.ERROR if isinstance(error, AccessDeniedError) else logging.WARNING,
                "unavailable, waiting: %s",
                error,
                extra={"stage": stage.value, "retry_after_s": round(decision.after, 2)},
            )
        system = f"{_BEHIND.get(stage, 'the external system')} ({stage.value})"
        self._systems.add(system)
        self._connections.not_connected(system, str(error), logged=True)
        self._attempt += 1
        self._counters.add("retries")
        return decision.after

    def progressed(self) -> None:
        """Note that a part of the operation worked: the outage continues, and its limit counts from now."""
        if self._attempt:
            self._attempt = 1
            self._since = self._clock.now()

    def over(self) -> None:
        """Note that the operation worked; the next error begins a new outage."""
        if self._begin is not None:
            self._end("available again")

    def no_error(self) -> None:
        """Note that there was no error, although nothing shows that the external system was asked.

        The limit of the outage then counts from the next error. After a minute the outage counts as over.
        """
        if self._begin is None:
            return
        now = self._clock.now()
        if self._quiet_since is None:
            self._quiet_since = now
        elif now - self._quiet_since >= _QUIET:
            self._end("no more errors")

    def _end(self, message: str) -> None:
        waited = round(self._clock.now() - (self._begin or 0.0), 1)
        log.info(message, extra={"stage": self._stage.value, "waited_s": waited})
        for system in self._systems:
            self._connections.connected(system, logged=True)
        self._systems.clear()
        self._attempt, self._begin, self._quiet_since = 0, None, None
