"""What the runtime offers a running task."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence

from tieline.api import Position, TransactionContext
from tieline.runtime.task.environment import TaskEnvironment


def canonical(position: Position) -> str:
    """A source partition or offset as the text under which it is stored: JSON, keys sorted."""
    return json.dumps(position, sort_keys=True, separators=(",", ":"))


class TaskContext:
    """What every task is offered."""

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
    def stopping(self) -> bool:
        """Asked to stop."""
        return self._environment.stop.is_set()

    def count(self, name: str, number: int = 1) -> None:
        """Add to a counter."""
        self._environment.counters.add(name, number)

    def connected(self, to: str) -> None:
        """See ``SinkContext.connected``."""
        self._environment.connections.found(to)

    def not_connected(self, to: str, because: str) -> None:
        """See ``SinkContext.not_connected``."""
        self._environment.connections.lost(to, because)


class TaskSourceContext(TaskContext):
    """What a source task is offered; see ``tieline.api.SourceContext``."""

    transaction: TransactionContext | None = None

    def __init__(
        self,
        environment: TaskEnvironment,
        saved: Callable[[], Mapping[str, str]],
        keep: Callable[[bytes, str], None] | None = None,
    ) -> None:
        super().__init__(environment)
        self._saved = saved
        self._keep = keep

    def offset(self, partition: Position) -> Position | None:
        """Return the saved offset. Raises ``RetriableError`` if the broker is unavailable."""
        return self.offsets([partition])[0]

    def offsets(self, partitions: Sequence[Position]) -> list[Position | None]:
        """The saved offsets. Raises ``Retriable`` while the broker is away."""
        saved = self._saved()
        texts = [saved.get(canonical(partition)) for partition in partitions]
        return [None if text is None else json.loads(text) for text in texts]

    def quarantine(self, raw: bytes, reason: str) -> None:
        """Keep it where there is a spool; count it always."""
        self._environment.counters.add(f"quarantined.{reason}")
        if self._keep is not None:
            self._keep(raw, reason)
