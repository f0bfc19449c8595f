"""Group commit: whoever writes takes along all who wait, in one transaction of the broker."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import TypeAlias

from tieline.api import DataError
from tieline.registry.model.budget import OverBudget, limited
from tieline.registry.model.errors import RegistryError
from tieline.registry.model.events import Event
from tieline.registry.model.rules import Decision
from tieline.registry.model.state import Conflict, Subjects

Rule: TypeAlias = Callable[[Subjects], Decision]
Write: TypeAlias = Callable[[Callable[[Subjects], list[Event]]], None]
"""Hold the topic, call with a state that is up to date, write the events that it gives."""

_MOST = 500  # events of one transaction, or a few more


class Change:
    """A change that waits to be written. One of ``decision`` and ``error`` is set when it is ``done``."""

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self.done = False
        self.decision: Decision | None = None
        self.error: Exception | None = None


class Commits:
    """Changes of many threads, each decided on the state that those before it leave."""

    def __init__(self, write: Write) -> None:
        self._write = write
        self._writing = threading.Lock()
        self._waiting: deque[Change] = deque()

    def commit(self, rule: Rule) -> Decision:
        """Decide and write, alone or with others.

        Nothing is computed meanwhile: a rule that needs more than what is remembered raises ``OverBudget``.
        Raises what the rule raises, and what the broker does.
        """
        change = Change(rule)
        self._waiting.append(change)
        with self._writing:
            while not change.done:
                self._round()
        if change.error is not None:
            raise change.error
        assert change.decision is not None
        return change.decision

    def _round(self) -> None:
        """Write for all who wait once the topic is held, which takes the longest."""
        batch: list[Change] = []

        def decide(state: Subjects) -> list[Event]:
            batch.extend(self._taken(_MOST))
            return _decided(batch, state)

        try:
            self._write(decide)
        except DataError as error:  # a record that the broker does not take costs itself alone
            for change in batch:
                self._alone(change, error if len(batch) == 1 else None)
        except Exception as error:
            batch = batch or self._taken(len(self._waiting))
            for change in batch:
                change.error = error
        finally:
            for change in batch:
                change.done = True

    def _taken(self, most: int) -> list[Change]:
        return [self._waiting.popleft() for _ in range(min(most, len(self._waiting)))]

    def _alone(self, change: Change, known: Exception | None) -> None:
        change.error = known
        if known is None:
            try:
                self._write(lambda state: _decided([change], state))
            except Exception as error:
                change.error = error


def _decided(batch: Sequence[Change], state: Subjects) -> list[Event]:
    """The events of all changes that are taken. ``state`` is changed with them."""
    events: list[Event] = []
    for change in batch:
        change.decision = change.error = None
        try:
            with limited(0):
                decision = change.rule(state)
            for event in decision.events:
                state.apply(event)
        except (RegistryError, OverBudget, Conflict) as error:
            change.error = error
            continue
        change.decision = decision
        events += decision.events
    return events
