import pytest

from tieline.api import (
    AccessDeniedError,
    DataError,
    FatalError,
    FencedError,
    PluginError,
    RetriableError,
)
from tieline.config.retry_policy import RetryPolicy
from tieline.runtime.errors.failure_table import Retry, Stage, Stop, backoff, decide

POLICY = RetryPolicy(first_delay=0.3, max_delay=60.0, timeout=-1.0)


def outcome(error, *, attempt=0, waited=0.0, policy=POLICY, jitter=0.0):
    return decide(Stage.TASK_PUT, error, attempt=attempt, waited=waited, policy=policy, jitter=jitter)


def test_an_outage_is_waited_out_without_a_limit_unless_one_is_set():
    assert outcome(RetriableError("unavailable"), attempt=500, waited=1e9) == Retry(60.0)


def test_an_outage_longer_than_the_retry_timeout_stops_the_task():
    stopped = outcome(RetriableError("unavailable"), waited=10.0, policy=POLICY._replace(timeout=10.0))
    assert isinstance(stopped, Stop)
    assert "errors.retry.timeout" in stopped.reason


def test_a_retriable_error_with_a_delay_is_retried_after_it():
    assert outcome(RetriableError("busy", after=7.0), attempt=3) == Retry(7.0)


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (DataError({3: ValueError("bad")}), "record 3"),
        (FatalError("no right to write"), "no right"),
        (PluginError("gone"), "gone"),
        (KeyError("surprise"), "did not handle"),
    ],
)
def test_everything_else_stops_the_task_and_says_why(error, says):
    stopped = outcome(error)
    assert isinstance(stopped, Stop)
    assert says in stopped.reason
    assert stopped.reason.startswith("TASK_PUT: ")


@pytest.mark.parametrize(
    ("error", "helps"),
    [
        (DataError({0: ValueError("bad")}), False),
        (PluginError("gone"), False),
        (FencedError("another owner"), False),
        (FatalError("no right to write"), True),
        (KeyError("surprise"), True),
        (RetriableError("still unavailable"), True),
        (AccessDeniedError("still no right"), True),
    ],
)
def test_a_restart_helps_unless_it_would_meet_the_same_record_settings_or_fence(error, helps):
    stopped = outcome(error, waited=10.0, policy=POLICY._replace(timeout=10.0))
    assert isinstance(stopped, Stop)
    assert stopped.restart_helps is helps


def test_backoff_doubles_up_to_its_maximum_and_jitter_removes_up_to_half():
    delays = [backoff(POLICY, attempt, 0.0) for attempt in range(10)]
    assert delays[:4] == pytest.approx([0.3, 0.6, 1.2, 2.4])
    assert delays[-1] == 60.0
    assert backoff(POLICY, 4, 0.999) == pytest.approx(2.4, rel=0.01)
