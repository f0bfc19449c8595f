"""The counters of a command task. Counters only grow: a maximum is reported by its growth."""

from __future__ import annotations

from collections.abc import Callable

from tieline.api.metrics import CounterMetric, DurationMetric

METRICS = (
    CounterMetric(
        "command_ended",
        "Commands, and holds of commands, by the state in which they ended.",
        "ended.*",
        "state",
    ),
    CounterMetric("command_executed", "Commands that were written to a device.", "executed"),
    DurationMetric("command_age_seconds", "From a command's time of issue to its write.", "age"),
    DurationMetric("command_call_seconds", "Calls to the platform, answered or not.", "rpc"),
    CounterMetric("command_holds_unpaid", "Holds that could not be reverted at their end.", "holds.unpaid"),
    CounterMetric("command_holds_paid", "Such holds that were settled later.", "holds.paid"),
    CounterMetric(
        "command_circuits",
        "Devices whose circuit breaker has opened, and whose breaker has closed again.",
        "circuit.*",
        "event",
    ),
)


class CommandCounters:
    """Counts commands, holds and calls under the task's counter names. Used by both threads of a task.

    ``count`` adds to one of the task's counters, ``observe`` to one of its distributions of durations.
    """

    def __init__(self, count: Callable[[str, int], None], observe: Callable[[str, float], None]) -> None:
        self._count = count
        self._observe = observe
        self._maxima: dict[str, int] = {}

    def ended(self, state: str) -> None:
        """Count a command, or its hold, that ended in this state."""
        self._count(f"ended.{state}", 1)

    def executed(self, age: int) -> None:
        """Count a command that is written now; ``age``: microseconds since it was issued."""
        self._count("executed", 1)
        self._add_time("age.ms", max(age, 0) // 1000)
        self._observe("age", age / 1_000_000)

    def called(self, seconds: float) -> None:
        """Count a call to a device, and how long it took, answered or not."""
        self._count("rpc.calls", 1)
        self._add_time("rpc.ms", round(seconds * 1000))
        self._observe("rpc", seconds)

    def hold_unpaid(self) -> None:
        """Count a hold that could not be reverted at its end, the first time."""
        self._count("holds.unpaid", 1)

    def hold_paid(self) -> None:
        """Count such a hold once it is settled."""
        self._count("holds.paid", 1)

    def circuits(self, opened: int, closed: int) -> None:
        """Count the devices whose circuit breaker has opened, and those whose breaker has closed."""
        for name, number in (("circuit.opened", opened), ("circuit.closed", closed)):
            if number:
                self._count(name, number)

    def _add_time(self, name: str, ms: int) -> None:
        self._count(name, ms)
        maximum = self._maxima.get(name, 0)
        if ms > maximum:
            self._count(f"{name}.max", ms - maximum)
            self._maxima[name] = ms
