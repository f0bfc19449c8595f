"""The states of tasks and connectors, with Kafka Connect's names."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, get_args

State = Literal["FAILED", "RESTARTING", "RUNNING", "PAUSED", "UNASSIGNED", "STOPPED"]
"""The worst state comes first; a connector has the worst state of its tasks.

| state      | the task                                                                                  |
|------------|-------------------------------------------------------------------------------------------|
| FAILED     | has failed: it stays down until its breaker's timer, or until an operator restarts it      |
| RESTARTING | has failed, and is restarted after a delay                                                |
| RUNNING    | runs; it may be waiting for a system that is unavailable                                  |
| PAUSED     | was paused by an operator                                                                 |
| UNASSIGNED | is built, and not started yet                                                             |
| STOPPED    | has ended as it was asked to                                                              |
"""


def worst(states: Iterable[State]) -> State:
    """Return the worst of these states; STOPPED if there is none."""
    present = set(states)
    order: tuple[State, ...] = get_args(State)
    return next((state for state in order if state in present), "STOPPED")
