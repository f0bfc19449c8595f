"""The begin and the end of an outage: logged once each, and the end only when it is true."""

import threading

import pytest

from tieline.api import FatalError, FencedError, RetriableError
from tieline.config.retry_policy import RetryPolicy
from tieline.runtime.errors.failure_table import Stage
from tieline.runtime.errors.retry_state import TaskFailedError
from tieline.runtime.task.environment import TaskEnvironment
from tieline.testing.clock import FakeClock


@pytest.fixture
def environment():
    return TaskEnvironment("c", 0, RetryPolicy(1.0, 1.0, 10.0), FakeClock())


@pytest.fixture
def polling(environment, caplog):
    caplog.set_level("INFO")
    return environment.retry_state(Stage.TASK_POLL)


def passes(environment, seconds):
    environment.clock.wait(threading.Event(), seconds)


def outage(polling):
    return polling.after(RetriableError("the device is unavailable"))


def test_an_outage_is_logged_at_its_start_and_at_its_end(environment, polling, caplog):
    outage(polling)
    passes(environment, 2)
    outage(polling)
    polling.over()
    assert caplog.messages == ["unavailable, waiting: the device is unavailable", "available again"]
    assert environment.connections.all() == []


def test_without_an_outage_no_end_is_logged(polling, caplog):
    polling.over()
    polling.no_error()
    assert caplog.messages == []


def test_polls_without_an_error_do_not_end_an_outage_at_once(environment, polling, caplog):
    """A source that polls its device once a minute returns nothing in between."""
    for _ in range(5):
        outage(polling)
        for _ in range(10):
            passes(environment, 2)
            polling.no_error()
    assert caplog.messages == ["unavailable, waiting: the device is unavailable"]
    assert len(environment.connections.all()) == 1


def test_a_minute_without_an_error_ends_an_outage_and_does_not_call_the_device_available(
    environment, polling, caplog
):
    outage(polling)
    for _ in range(62):
        passes(environment, 1)
        polling.no_error()
    assert caplog.messages[1:] == ["no more errors"]
    assert environment.connections.all() == []


def test_the_limit_of_an_outage_counts_from_the_first_error_after_polls_without_one(environment, polling):
    outage(polling)
    passes(environment, 9)
    polling.no_error()
    passes(environment, 9)
    outage(polling)
    passes(environment, 11)
    with pytest.raises(TaskFailedError, match="still unavailable after 11 s"):
        outage(polling)


@pytest.mark.parametrize(("error", "is_kept"), [(KeyError("x"), True), (FatalError("x"), False)])
def test_only_an_error_that_the_connector_did_not_handle_is_kept_with_its_traceback(polling, error, is_kept):
    with pytest.raises(TaskFailedError) as failed:
        polling.after(error)
    assert (failed.value.unexpected is error) == is_kept


def test_a_task_that_failed_says_whether_a_restart_helps(polling):
    with pytest.raises(TaskFailedError) as fenced:
        polling.after(FencedError("another owner"))
    with pytest.raises(TaskFailedError) as failed:
        polling.after(ValueError("a bug"))
    assert (fenced.value.restart_helps, failed.value.restart_helps) == (False, True)
