import pytest
from hypothesis import given as for_all
from hypothesis import strategies as st

from tieline.api import ConfigError
from tieline_connectors.command.model.command import Result, WriteResult
from tieline_connectors.command.model.facts import EmptyHistory, PolicyContext
from tieline_connectors.command.model.streaks import Streak, Streaks, shows_working

DEVICE, POINT = "campus/b1/ahu1", "campus/b1/AHU1/p"
BREAKER = {"limits": {"breaker": {"failures": 3, "minutes": 10}}}


def result(state, outcome, *, code="", reason="", name="c", other_writes=()):
    writes = (WriteResult(POINT, 1, outcome=outcome, reason=reason), *other_writes)
    return Result(name, state, 0, reason_code=code, writes=writes)


WORKED = result("SUCCEEDED", "VERIFIED")
FAILED = result("FAILED", "NOT_WRITTEN", code="DEVICE_REFUSED", reason="no")


@pytest.mark.parametrize(
    ("end", "worked"),
    [
        (WORKED, True),
        (FAILED, False),
        (result("FAILED", "NOT_WRITTEN", code="DEVICE_REFUSED"), None),  # another device's refusal
        (result("FAILED", "REVERTED", code="DEVICE_REFUSED"), None),
        (result("FAILED", "NOT_WRITTEN", code="NOT_SENT", reason="away"), None),
        (result("MISMATCH", "DIFFERENT"), False),
        (result("MISMATCH", "VERIFIED"), True),
        (result("UNKNOWN", "UNKNOWN", code="NO_ANSWER"), False),
        (result("UNKNOWN", "UNVERIFIED", code="NOT_READ_BACK"), False),
        (result("UNKNOWN", "NOT_WRITTEN", code="NO_ANSWER"), None),
        (result("UNKNOWN", "UNKNOWN", code="CRASHED"), None),
        (result("EXPIRED", "NOT_WRITTEN", code="TOO_SLOW"), None),
        (result("REJECTED", "NOT_WRITTEN", code="KILL_SWITCH"), None),
    ],
)
def test_the_end_of_a_command_shows_whether_its_device_works(end, worked):
    assert shows_working(end, DEVICE) is worked


def test_of_two_devices_the_one_that_failed_is_blamed():
    other = WriteResult("campus/b1/ahu2/p", 1, outcome="VERIFIED")
    end = result("MISMATCH", "DIFFERENT", other_writes=[other])
    assert (shows_working(end, DEVICE), shows_working(end, "campus/b1/ahu2")) == (False, True)


@for_all(st.permutations(list(enumerate([False, True, False, False, None, False], start=1))))
def test_a_streak_is_the_same_in_whatever_order_its_ends_are_read(ends):
    streaks = Streaks()
    for time, worked in ends:
        kind = {True: WORKED, False: FAILED, None: result("EXPIRED", "NOT_WRITTEN")}[worked]
        streaks.add(kind._replace(command_id=f"c{time}"), time)
    assert streaks.get(DEVICE.upper()) == Streak(3, 6)
    assert dict(streaks) == {DEVICE: Streak(3, 6)}
    streaks.remove({"c6"})
    assert streaks.get(DEVICE) == Streak(2, 4)
    streaks.add(WORKED, 7)
    assert (streaks.get(DEVICE), dict(streaks)) == (Streak(), {})


class Failing(EmptyHistory):
    def __init__(self, failures, time):
        self._streak = Streak(failures, time)

    def streak(self, device):
        return self._streak if device == "campus/b1/ahu1" else Streak()


@pytest.mark.parametrize(
    ("failures", "minutes_ago", "open_"), [(2, 1, False), (3, 1, True), (9, 9.999, True), (9, 10, False)]
)
def test_a_device_that_fails_is_left_alone_for_a_while(given, failures, minutes_ago, open_):
    policy = given.policy(given.RULE, **BREAKER)
    history = Failing(failures, given.T0 - int(minutes_ago * given.MINUTE))
    refused = policy.rejection(given.command(), PolicyContext(given.T0, history))
    assert (refused is not None) is open_
    if open_:
        assert refused.code == "CIRCUIT_OPEN"
        assert refused.reason.startswith(f"the last {failures} commands of campus/b1/ahu1 have failed")
    elsewhere = given.command(writes=[{"point": "campus/b1/ahu2/p", "value": 1}])
    assert policy.rejection(elsewhere, PolicyContext(given.T0, history)) is None
    assert given.policy(given.RULE).rejection(given.command(), PolicyContext(given.T0, history)) is None


def test_problems_in_a_breaker_are_reported_with_its_own_keys(given):
    with pytest.raises(ConfigError) as reported:
        given.policy(given.RULE, limits={"breaker": {"failure": 3, "minutes": 0}})
    assert [str(problem) for problem in reported.value.problems] == [
        "policy.json: limits.breaker: failures: is required",
        "policy.json: limits.breaker: minutes: input should be greater than 0",
        "policy.json: limits.breaker: failure: unknown key; did you mean 'failures'?",
    ]
