"""What a task of commands counts. Counters only grow: a maximum is told by what it grows."""

from __future__ import annotations

from collections.abc import Callable


class Measures:
    """Names and units of the counters; ``count`` is the task's own. From both of its threads."""

    def __init__(self, count: Callable[[str, int], None]) -> None:
        self._count = count
        self._most: dict[str, int] = {}

    def ended(self, state: str) -> None:
        """A command has come to this end, or its hold."""
        self._count(f"ended.{state}", 1)

    def executed(self, age: int) -> None:
        """A command is written now, so many microseconds after it was issued."""
        self._count("executed", 1)
        self._time("age.ms", max(age, 0) // 1000)

    def called(self, seconds: float) -> None:
        """The platform has answered a call to a device, or has not, after so long."""
        self._count("rpc.calls", 1)
        self._time("rpc.ms", round(seconds * 1000))

    def owed(self) -> None:
        """A hold could not be given back at its end, for the first time."""
        self._count("holds.unpaid", 1)

    def paid(self) -> None:
        """Such a hold was given back after all, or is no debt any more."""
        self._count("holds.paid", 1)

    def circuits(self, opened: int, closed: int) -> None:
        """So many more devices are left alone from now on, and so many not any more."""
        for name, number in (("circuit.opened", opened), ("circuit.closed", closed)):
            if number:
                self._count(name, number)

    def _time(self, name: str, ms: int) -> None:
        self._count(name, ms)
        most = self._most.get(name, 0)
        if ms > most:
            self._count(f"{name}.max", ms - most)
            self._most[name] = ms
