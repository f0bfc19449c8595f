"""Group commit: one thread writes all changes that wait, in one transaction of the broker."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import TypeAlias

from tieline.api import DataError
from tieline.registry.model.budget import OverBudgetError, step_limit
from tieline.registry.model.errors import RegistryError
from tieline.registry.model.events import Event
from tieline.registry.model.rules import Decision
from tieline.registry.model.state import ConflictError, Subjects

Rule: TypeAlias = Callable[[Subjects], Decision]
Write: TypeAlias = Callable[[Callable[[Subjects], list[Event]]], None]
"""Holds the topic, calls its argument with an up-to-date state, and writes the events that it returns."""

_MAX_CHANGES = 500  # in one transaction


class PendingChange:
    """A change that waits to be written. When it is ``done``, it has a ``decision`` or an ``error``."""

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self.done = False
        self.decision: Decision | None = None
        self.error: Exception | None = None


class GroupCommit:
    """Writes the changes of many threads. Each is decided on the state that the changes before it leave."""

    def __init__(self, write: Write) -> None:
        self._write = write
        self._writing = threading.Lock()
        self._waiting: deque[PendingChange] = deque()

    @property
    def waiting(self) -> int:
        """The number of changes that no thread has started to write yet."""
        return len(self._waiting)

    def commit(self, rule: Rule) -> Decision:
        """Decide and write a change, alone or with others. Raises what the rule and the broker raise.

        While the topic is held, nothing is computed. A rule that needs more than cached results raises
        ``OverBudgetError``.
        """
        change = PendingChange(rule)
        self._waiting.append(change)
        with self._writing:
            while not change.done:
                self._write_batch()
        if change.error is not None:
            raise change.error
        assert change.decision is not None
        return change.decision

    def _write_batch(self) -> None:
        """Write all changes that wait when the topic is held, since holding it takes the longest."""
        batch: list[PendingChange] = []

        def decide(state: Subjects) -> list[Event]:
            batch.extend(self._take(_MAX_CHANGES))
            return _decide(batch, state)

        try:
            self._write(decide)
        except DataError as error:  # the broker rejects a record; the other changes must not suffer
            for change in batch:
                self._write_alone(change, error if len(batch) == 1 else None)
        except Exception as error:  # noqa: BLE001  # each waiting thread raises it
            batch = batch or self._take(self.waiting)
            for change in batch:
                change.error = error
        finally:
            for change in batch:
                change.done = True

    def _take(self, count: int) -> list[PendingChange]:
        return [self._waiting.popleft() for _ in range(min(count, len(self._waiting)))]

    def _write_alone(self, change: PendingChange, known: Exception | None) -> None:
        change.error = known
        if known is None:
            try:
                self._write(lambda state: _decide([change], state))
            except Exception as error:  # noqa: BLE001  # the waiting thread raises it
                change.error = error


def _decide(batch: Sequence[PendingChange], state: Subjects) -> list[Event]:
    """Return the events of all changes that their rules permit, and apply them to the state."""
    events: list[Event] = []
    for change in batch:
        change.decision = change.error = None
        try:
            with step_limit(0):
                decision = change.rule(state)
            for event in decision.events:
                state.apply(event)
        except (RegistryError, OverBudgetError, ConflictError) as error:
            change.error = error
            continue
        change.decision = decision
        events += decision.events
    return events
