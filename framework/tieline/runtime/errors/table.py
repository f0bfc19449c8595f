"""The failure table: stage × error → wait and try again, or stop. Pure.

| error       | what the runtime does                                                        |
|-------------|------------------------------------------------------------------------------|
| RetriableError   | waits (exponential backoff with jitter), offers the same batch again          |
| AccessDeniedError      | the same, and reports it as an error: an operator has to change something     |
| DataError   | stops the task; with a dead letter queue the record goes there (a later row)  |
| FatalError       | stops the task                                                                |
| anything    | stops the task: a bug in the connector                                        |

Unavailable is not bad: an outage is waited out without a limit unless ``errors.retry.timeout`` sets one.
"""

from __future__ import annotations

import enum
from typing import NamedTuple

from tieline.api import AccessDeniedError, DataError, FatalError, RetriableError, StartupError
from tieline.config.retry_policy import RetryPolicy


class Stage(enum.Enum):
    """Where on a record's journey; the names are Kafka Connect's where it has one."""

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
    """Offer the same batch again after so many seconds."""

    after: float


class Stop(NamedTuple):
    """The task fails, and says why."""

    reason: str


def decide(
    stage: Stage,
    error: Exception,
    *,
    attempt: int,
    waited: float,
    policy: RetryPolicy,
    jitter: float,
) -> Retry | Stop:
    """What to do after ``error`` in ``stage``.

    ``attempt`` counts from 0 the failures of this batch in a row, ``waited`` is the time since the
    first of them, ``jitter`` in [0, 1) is the caller's dice.
    """
    if isinstance(error, (RetriableError, AccessDeniedError)):
        if 0 <= policy.timeout <= waited:
            return Stop(
                f"{stage.value}: still unavailable after {waited:.0f} s (errors.retry.timeout): {error}"
            )
        if isinstance(error, RetriableError) and error.after is not None:
            return Retry(error.after)
        return Retry(backoff(policy, attempt, jitter))
    if isinstance(error, DataError):
        return Stop(f"{stage.value}: {error}")
    if isinstance(error, (FatalError, StartupError)):
        return Stop(f"{stage.value}: {error}")
    return Stop(
        f"{stage.value}: {type(error).__name__}: {error} (an error that the connector did not handle)"
    )


def backoff(policy: RetryPolicy, attempt: int, jitter: float) -> float:
    """300 ms, doubled each time up to the maximum; of that a random half is taken off (jitter)."""
    delay: float = min(policy.max_delay, policy.first_delay * 2 ** min(attempt, 30))
    return delay * (1 - jitter / 2)
