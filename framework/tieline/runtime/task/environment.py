"""What the parts of one task share: its name, its counters, and how it waits."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from tieline.config.retry_policy import RetryPolicy
from tieline.runtime.errors.failure_table import Stage
from tieline.runtime.errors.retry_state import RetryState, StopRequestedError
from tieline.runtime.task.activity import Activity
from tieline.runtime.task.clock import Clock, Counters
from tieline.runtime.task.connections import Connections
from tieline.runtime.task.durations import Durations

T = TypeVar("T")
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TaskEnvironment:
    """One task: its name and number, whether it is asked to stop, how it waits, what it counts."""

    connector: str
    task: int
    policy: RetryPolicy = field(default_factory=RetryPolicy)
    clock: Clock = field(default_factory=Clock)
    stop: threading.Event = field(default_factory=threading.Event)
    counters: Counters = field(default_factory=Counters)
    durations: Durations = field(default_factory=Durations)
    data_dir: Path = Path("data")
    """The worker's folder."""
    activity: Activity = field(default_factory=Activity)

    @cached_property
    def connections(self) -> Connections:
        """The external systems that the task cannot reach now."""
        return Connections(self.clock.now, self.clock.wall_ms)

    @property
    def id(self) -> str:
        """``connector-task``, as Kafka Connect prints it."""
        return f"{self.connector}-{self.task}"

    def renewed(self) -> TaskEnvironment:
        """Return an environment for another runner of this task: not asked to stop, the same totals."""
        return replace(self, stop=threading.Event())

    def retry_state(self, stage: Stage) -> RetryState:
        """Return the state of retries at this stage."""
        return RetryState(stage, self.policy, self.clock, self.connections, self.counters)

    def retry(self, stage: Stage, operation: Callable[[], T]) -> T:
        """Return the operation's result, waiting out every outage.

        Raises ``TaskFailedError``, and ``StopRequestedError`` if the task is asked to stop.
        """
        retrying = self.retry_state(stage)
        while True:
            try:
                result = operation()
            except StopRequestedError:
                raise
            except Exception as error:
                if self.clock.wait(self.stop, retrying.after(error)):
                    raise StopRequestedError from error
            else:
                retrying.over()
                return result
