"""When a task handled its last records, for those who watch it."""

from __future__ import annotations

from dataclasses import dataclass

from tieline.runtime.task.clock import Clock


@dataclass
class Activity:
    """The times of a task's last records: on its clock, and of day in ms since 1970; ``None`` if none came.

    It is noted once a batch, by the threads of the task. Any thread may read it.
    """

    received: float | None = None
    received_ms: int | None = None
    delivered: float | None = None
    delivered_ms: int | None = None
    waiting_since_ms: int | None = None
    """Since when records have come in without any delivery; ``None`` if the last ones were delivered."""
    partitions: int | None = None
    """How many partitions a sink owns; ``None`` if it is not in its group."""

    def note_received(self, clock: Clock) -> None:
        """Note that records came in now."""
        self.received, self.received_ms = clock.now(), clock.wall_ms()
        if self.waiting_since_ms is None:
            self.waiting_since_ms = self.received_ms

    def note_delivered(self, clock: Clock) -> None:
        """Note that records were delivered now."""
        self.delivered, self.delivered_ms = clock.now(), clock.wall_ms()
        self.waiting_since_ms = None
