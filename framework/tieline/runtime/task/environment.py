"""What the parts of one task share: its name, its counters, and its patience."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeVar

from tieline.config.retry_policy import RetryPolicy
from tieline.runtime.errors.retry import RetryState, StopRequested
from tieline.runtime.errors.table import Stage
from tieline.runtime.task.clock import Clock, Counters
from tieline.runtime.task.connections import Connections

T = TypeVar("T")
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TaskEnvironment:
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

    def retry_state(self, stage: Stage) -> RetryState:
        """RetryState for a new outage in this stage."""
        return RetryState(stage, self.policy, self.clock, self.connections, self.counters)

    def retry(self, stage: Stage, operation: Callable[[], T]) -> T:
        """Do it, waiting out every outage. Raises ``TaskFailed``, or ``StopRequested`` when asked to stop."""
        patience = self.retry_state(stage)
        while True:
            try:
                result = operation()
            except StopRequested:
                raise
            except Exception as error:
                if self.clock.wait(self.stop, patience.after(error)):
                    raise StopRequested from error
            else:
                patience.over()
                return result
