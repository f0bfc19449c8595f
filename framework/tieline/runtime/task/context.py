"""What the runtime offers a running task."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tieline.api import Position, TransactionContext
from tieline.runtime.task.environment import TaskEnvironment

log = logging.getLogger(__name__)


def canonical(position: Position) -> str:
    """Return a source partition or offset as the text that is stored: JSON with sorted keys."""
    return json.dumps(position, sort_keys=True, separators=(",", ":"))


class TaskContext:
    """What every task can use."""

    def __init__(self, environment: TaskEnvironment) -> None:
        self._environment = environment

    @property
    def connector(self) -> str:
        """The connector's name."""
        return self._environment.connector

    @property
    def task(self) -> int:
        """The task's number."""
        return self._environment.task

    @property
    def data_dir(self) -> Path:
        """The worker's ``data.dir``."""
        return self._environment.data_dir

    @property
    def stopping(self) -> bool:
        """Whether the task was asked to stop."""
        return self._environment.stop.is_set()

    def count(self, name: str, number: int = 1) -> None:
        """Add to a counter."""
        self._environment.counters.add(name, number)

    def observe(self, name: str, seconds: float) -> None:
        """Add to a distribution of durations."""
        self._environment.durations.observe(name, seconds)

    def connected(self, system: str) -> None:
        """Report that ``system`` is connected (again)."""
        self._environment.connections.connected(system)

    def not_connected(self, system: str, reason: str) -> None:
        """Report that ``system`` cannot be reached."""
        self._environment.connections.not_connected(system, reason)


class TaskSourceContext(TaskContext):
    """A ``tieline.api.SourceContext`` of a source whose records can be read again."""

    transaction: TransactionContext | None = None

    def __init__(
        self,
        environment: TaskEnvironment,
        saved: Callable[[], Mapping[str, str]],
    ) -> None:
        """``saved`` returns the offset of each source partition, both as text."""
        super().__init__(environment)
        self._saved = saved

    def offset(self, partition: Position) -> Position | None:
        """Return the saved offset. Raises ``RetriableError`` if the broker is unavailable."""
        return self.offsets([partition])[0]

    def offsets(self, partitions: Sequence[Position]) -> list[Position | None]:
        """Return the saved offsets. Raises ``RetriableError`` if the broker is unavailable."""
        saved = self._saved()
        texts = [saved.get(canonical(partition)) for partition in partitions]
        return [None if text is None else json.loads(text) for text in texts]

    @property
    def spool_used(self) -> float:
        """0.0: there is no spool."""
        return 0.0

    def quarantine(self, raw: bytes, reason: str) -> None:
        """Count input that cannot be parsed."""
        self._environment.counters.add(f"quarantined.{reason}")


class SpooledSourceContext(TaskSourceContext):
    """A ``tieline.api.SourceContext`` of a source with a spool, whose position replaces source offsets."""

    def __init__(
        self, environment: TaskEnvironment, keep: Callable[[bytes, str], None], used: Callable[[], float]
    ) -> None:
        """``keep`` stores input that cannot be parsed, with the reason. ``used``: see ``spool_used``."""
        super().__init__(environment, dict)
        self._keep = keep
        self._used = used
        self.offsets_reported = False

    def offsets(self, partitions: Sequence[Position]) -> list[Position | None]:
        """Return ``None`` for each partition, and report once that nothing is saved."""
        self.report_offsets("asks for source offsets")
        return [None] * len(partitions)

    @property
    def spool_used(self) -> float:
        """Return which share of the spool is in use; 1.0 if its disk cannot tell."""
        return self._used()

    def report_offsets(self, what: str) -> None:
        """Log once that the source offsets of this task are not used. ``what``: what the task does."""
        if not self.offsets_reported:
            self.offsets_reported = True
            log.warning(
                "the task %s %s, but has replayable = False: source offsets are not saved, and"
                " context.offsets returns None. The position in its spool is used instead. See the page"
                " 'Replayable or not?'",
                *(self._environment.id, what),
            )

    def quarantine(self, raw: bytes, reason: str) -> None:
        """Keep input that cannot be parsed beside the spool, and count it."""
        super().quarantine(raw, reason)
        self._keep(raw, reason)
