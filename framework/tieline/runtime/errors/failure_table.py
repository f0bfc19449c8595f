"""The failure table: stage × error → wait and try again, or stop. Pure.

| error             | what the runtime does                                                | restart |
|-------------------|----------------------------------------------------------------------|---------|
| RetriableError    | waits (backoff with jitter) and offers the same batch again          |         |
| AccessDeniedError | does the same, and logs an error: an operator has to act             |         |
| DataError         | stops the task                                                       | no      |
| StartupError      | stops the task: its settings are wrong                               | no      |
| FencedError       | stops the task: another owner has taken over                         | no      |
| FatalError        | stops the task                                                       | yes     |
| any other         | stops the task: a bug in the connector, whose traceback is kept      | yes     |

Unavailable is not bad: an outage is waited out without a limit unless ``errors.retry.timeout`` sets one; a
task that has reached that limit is restarted. A restart does not help a task that met a bad record: it would
read the same record, and deliver again whatever was not committed before it. With a dead letter queue, bad
records cost only themselves, also those on which a converter or transform fails with any other error.
"""

from __future__ import annotations

import enum
from typing import NamedTuple, Protocol

from tieline.api import (
    AccessDeniedError,
    DataError,
    FatalError,
    FencedError,
    RetriableError,
    StartupError,
)
from tieline.config.retry_policy import RetryPolicy


class Stage(enum.Enum):
    """A place on a record's journey; the names are Kafka Connect's if it has one."""

    START = "START"
    TASK_POLL = "TASK_POLL"
    SPOOL = "SPOOL"
    TRANSFORMATION = "TRANSFORMATION"
    KEY_CONVERTER = "KEY_CONVERTER"
    VALUE_CONVERTER = "VALUE_CONVERTER"
    KAFKA_PRODUCE = "KAFKA_PRODUCE"
    KAFKA_CONSUME = "KAFKA_CONSUME"
    TASK_PUT = "TASK_PUT"
    TASK_FLUSH = "TASK_FLUSH"
    OFFSET_COMMIT = "OFFSET_COMMIT"


class Retry(NamedTuple):
    """Offer the same batch again after ``after`` seconds."""

    after: float


class Stop(NamedTuple):
    """The task fails.

    ``unexpected``: the error is a bug, so that its traceback matters. ``restart_helps``: whether another run
    may succeed although no operator has changed anything.
    """

    reason: str
    unexpected: bool = False
    restart_helps: bool = True


def decide(
    stage: Stage,
    error: Exception,
    *,
    attempt: int,
    waited: float,
    policy: RetryPolicy,
    jitter: float,
) -> Retry | Stop:
    """Return what to do after ``error`` in ``stage``.

    ``attempt`` counts the consecutive failures of this batch from 0. ``waited`` is the time since the first
    of them in seconds. ``jitter`` is a random number in [0, 1).
    """
    if isinstance(error, (RetriableError, AccessDeniedError)):
        if 0 <= policy.timeout <= waited:
            return Stop(
                f"{stage.value}: still unavailable after {waited:.0f} s (errors.retry.timeout): {error}"
            )
        if isinstance(error, RetriableError) and error.after is not None:
            return Retry(error.after)
        return Retry(backoff(policy, attempt, jitter))
    if isinstance(error, (DataError, StartupError, FatalError)):
        return Stop(f"{stage.value}: {error}", restart_helps=restart_helps(error))
    return Stop(
        f"{stage.value}: {type(error).__name__}: {error} (an error that the connector did not handle)",
        unexpected=True,
    )


def restart_helps(error: BaseException) -> bool:
    """Return whether a new run of a task that failed with this error may succeed as things are."""
    return not isinstance(error, (DataError, StartupError, FencedError))


class Delays(Protocol):
    """The first and the longest delay of a policy, in seconds."""

    @property
    def first_delay(self) -> float:
        """The delay before the second attempt."""

    @property
    def max_delay(self) -> float:
        """The longest delay."""


def backoff(policy: Delays, attempt: int, jitter: float) -> float:
    """Return the delay in seconds: the first one doubled up to the longest, less a random part up to half."""
    delay: float = min(policy.max_delay, policy.first_delay * 2 ** min(attempt, 30))
    return delay * (1 - jitter / 2)
