"""What the parts of one task share: its name, its counters, and its patience."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeVar

from tieline.api import Denied, TielineError
from tieline.runtime.connections import Connections
from tieline.runtime.failure import Retry, RetryPolicy, Stage, Stop, decide

T = TypeVar("T")
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


class TaskFailed(TielineError):
    """The task stops and its state is FAILED; the message is what a person reads first."""


class Stopping(Exception):
    """Not an error: leave what you are doing, the task was asked to stop while it waited."""


class Counters:
    """Named numbers that only grow; any thread may add and read."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._numbers: Counter[str] = Counter()

    def add(self, name: str, number: int = 1) -> None:
        """Add to one."""
        with self._lock:
            self._numbers[name] += number

    def __getitem__(self, name: str) -> int:
        """The number now; 0 if nothing was added yet."""
        return self._numbers[name]

    def all(self) -> dict[str, int]:
        """Each by its name."""
        with self._lock:
            return dict(self._numbers)


class Clock:
    """Monotonic seconds, the time of day, and waiting that ends early when the task is asked to stop."""

    def now(self) -> float:
        """Seconds from some fixed moment."""
        return time.monotonic()

    def wall_ms(self) -> int:
        """Milliseconds since 1970, UTC."""
        return time.time_ns() // 1_000_000

    def wait(self, stop: threading.Event, seconds: float) -> bool:
        """Wait; true if the task was asked to stop."""
        return stop.wait(seconds)


@dataclass(frozen=True)
class Scope:
    """One task: who it is, whether it is asked to stop, how it waits, what it counts."""

    connector: str
    task: int
    policy: RetryPolicy = field(default_factory=RetryPolicy)
    clock: Clock = field(default_factory=Clock)
    stop: threading.Event = field(default_factory=threading.Event)
    counters: Counters = field(default_factory=Counters)

    @cached_property
    def connections(self) -> Connections:
        """What the task cannot reach now."""
        return Connections(self.clock.now, self.clock.wall_ms)

    @property
    def id(self) -> str:
        """``connector-task``, as Kafka Connect prints it."""
        return f"{self.connector}-{self.task}"

    def patience(self, stage: Stage) -> Patience:
        """Patience for a new outage in this stage."""
        return Patience(self, stage)

    def patiently(self, stage: Stage, operation: Callable[[], T]) -> T:
        """Do it, waiting out every outage. Raises ``TaskFailed``, or ``Stopping`` when asked to stop."""
        patience = self.patience(stage)
        while True:
            try:
                result = operation()
            except Stopping:
                raise
            except Exception as error:
                if self.clock.wait(self.stop, patience.after(error)):
                    raise Stopping from error
            else:
                patience.over()
                return result


class Patience:
    """One outage from its first error to its end: asks the failure table, and logs once at each end."""

    def __init__(self, scope: Scope, stage: Stage) -> None:
        self._scope = scope
        self._stage = stage
        self._attempt = 0
        self._since = 0.0
        self._to: set[str] = set()

    def after(self, error: Exception) -> float:
        """Seconds until the next attempt. Raises ``TaskFailed`` when the table says stop."""
        stage = self._stage
        if isinstance(error, StageError):
            stage, error = error.stage, error.error
        now = self._scope.clock.now()
        if self._attempt == 0:
            self._since = now
        decision = decide(
            stage,
            error,
            attempt=self._attempt,
            waited=now - self._since,
            policy=self._scope.policy,
            jitter=random.random(),
        )
        if isinstance(decision, Stop):
            raise TaskFailed(decision.reason) from error
        assert isinstance(decision, Retry)
        if self._attempt == 0:
            log.log(
                logging.ERROR if isinstance(error, Denied) else logging.WARNING,
                "unavailable, waiting: %s",
                error,
                extra={"stage": stage.value, "retry_after_s": round(decision.after, 2)},
            )
        to = f"{_BEHIND.get(stage, 'the external system')} ({stage.value})"
        self._to.add(to)
        self._scope.connections.lost(to, str(error), said=True)
        self._attempt += 1
        self._scope.counters.add("retries")
        return decision.after

    def progressed(self) -> None:
        """Part of it worked: the outage continues, and is counted from now."""
        if self._attempt:
            self._attempt = 1
            self._since = self._scope.clock.now()

    def over(self) -> None:
        """It worked; the next error begins a new outage."""
        if self._attempt:
            waited = round(self._scope.clock.now() - self._since, 1)
            log.info("available again", extra={"stage": self._stage.value, "waited_s": waited})
            for to in self._to:
                self._scope.connections.found(to, said=True)
            self._to.clear()
        self._attempt = 0
