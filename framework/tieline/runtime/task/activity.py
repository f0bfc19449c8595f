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
    partitions: int | None = None
    """How many partitions a sink owns; ``None`` if it is not in its group."""

    def note_received(self, clock: Clock) -> None:
        """Note that records came in now."""
        self.received, self.received_ms = clock.now(), clock.wall_ms()

    def note_delivered(self, clock: Clock) -> None:
        """Note that records were delivered now."""
        self.delivered, self.delivered_ms = clock.now(), clock.wall_ms()
