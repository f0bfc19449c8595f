"""The policy of restarts, driven at random: by failures, health, time, and an operator."""

import math

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tieline.config.restart_policy import RestartPolicy
from tieline.runtime.worker.restarts import (
    BreakerOpen,
    GiveUp,
    History,
    after_run,
    decide,
    next_attempt,
    restarted,
)

jitters = st.floats(0, 1, exclude_max=True)
policies = st.builds(
    RestartPolicy,
    enabled=st.just(True),
    first_delay=st.sampled_from([0.001, 1.0, 7.0]),
    max_delay=st.sampled_from([0.5, 10.0, 600.0]),
    budget=st.integers(1, 6),
    window=st.sampled_from([1.0, 60.0, 3600.0]),
    breaker=st.sampled_from([-1.0, 0.5, 1800.0]),
    health=st.sampled_from([0.5, 300.0]),
)


class RestartsOfOneTask(RuleBasedStateMachine):
    """A task that fails after runs of any length, with or without records, under one policy."""

    @initialize(policy=policies)
    def begin(self, policy):
        self.policy = policy
        self.now = 1000.0
        self.started = self.now
        self.history = History()
        self.decision = None  # the task runs
        self.done = []  # the times of all restarts since the last one by an operator
        self.unhealthy = 0  # restarts since the last healthy run

    @rule(
        seconds=st.sampled_from([0.0, 0.001, 0.4, 5.0, 299.0, 1000.0]), worked=st.booleans(), jitter=jitters
    )
    def fail(self, seconds, worked, jitter):
        if self.decision is not None:
            return
        self.now += seconds
        last = self.now if worked else None
        self.history = after_run(
            self.history, started=self.started, now=self.now, last_record=last, policy=self.policy
        )
        if worked or seconds >= self.policy.health:
            self.unhealthy = 0
        assert self.history.attempts == self.unhealthy
        self.decision = decide(True, now=self.now, jitter=jitter, history=self.history, policy=self.policy)
        recent = [time for time in self.done if time + self.policy.window > self.now]
        if isinstance(self.decision, BreakerOpen):
            assert len(recent) == self.policy.budget
            if self.policy.breaker < 0:
                assert self.decision.until is None
            else:
                assert self.decision.until >= self.now + self.policy.breaker
        else:
            delay = (next_attempt(self.decision) or 0.0) - self.now
            whole = min(self.policy.max_delay, self.policy.first_delay * 2**self.unhealthy)
            assert whole / 2 - 1e-6 <= delay <= whole + 1e-6

    @rule(late=st.sampled_from([0.0, 0.0, 3.0, 5000.0]))
    def reach_the_time(self, late):
        due = None if self.decision is None else next_attempt(self.decision)
        if due is not None:
            self.now = due + late
            self.start()

    @rule()
    def let_an_operator_restart_it(self):
        if self.decision is not None:
            self.history, self.done, self.unhealthy = History(), [], 0
            self.start()

    def start(self):
        self.history = restarted(self.history, now=self.now, policy=self.policy)
        self.done.append(self.now)
        self.unhealthy += 1
        self.started, self.decision = self.now, None

    @invariant()
    def no_window_has_more_restarts_than_the_budget(self):
        budget = self.policy.budget
        for first, later in zip(self.done, self.done[budget:], strict=False):
            assert later >= first + self.policy.window

    @invariant()
    def the_history_is_bounded(self):
        assert len(self.history.times) <= self.policy.budget


TestRestartsOfOneTask = RestartsOfOneTask.TestCase


@given(policies, st.lists(jitters, min_size=2, max_size=40))
def test_delays_never_shrink_before_they_reach_the_longest_and_stay_near_it_then(policy, jitter):
    policy = policy._replace(budget=1000, first_delay=min(policy.first_delay, policy.max_delay))
    history, delays = History(), list[float]()
    for each in jitter:
        decision = decide(True, now=0.0, jitter=each, history=history, policy=policy)
        delays.append(next_attempt(decision) or 0.0)
        history = restarted(history, now=0.0, policy=policy)
    needed = math.ceil(math.log2(policy.max_delay / policy.first_delay))
    assert delays[:needed] == sorted(delays[:needed])
    assert all(policy.max_delay / 2 <= delay <= policy.max_delay for delay in delays[needed:])


@given(policies, jitters, st.booleans())
def test_a_failure_that_a_restart_does_not_help_is_final_and_so_is_any_if_restarts_are_disabled(
    policy, jitter, helps
):
    policy = policy._replace(enabled=not helps)
    assert decide(helps, now=5.0, jitter=jitter, history=History(), policy=policy) == GiveUp()


@given(policies, jitters)
def test_a_task_that_fails_at_once_whenever_it_is_started_is_tried_again_for_ever(policy, jitter):
    policy = policy._replace(breaker=max(policy.breaker, 0.5))
    now, history = 0.0, History()
    for _ in range(50):
        due = next_attempt(decide(True, now=now, jitter=jitter, history=history, policy=policy))
        assert due is not None
        assert now < due <= now + max(policy.window, policy.breaker, policy.max_delay)
        now, history = due, restarted(history, now=due, policy=policy)


tenths = st.integers(150, 200).map(lambda number: number / 10)


@given(policies, jitters, st.lists(tenths, min_size=1, max_size=6).map(sorted), tenths)
def test_a_restart_is_planned_only_for_a_time_at_which_the_window_has_room(policy, jitter, times, pause):
    policy = policy._replace(window=10.0, breaker=0.5, budget=min(policy.budget, len(times)))
    now = times[-1] + (pause - 15)
    history = History(tuple(times[-policy.budget :]))
    due = next_attempt(decide(True, now=now, jitter=jitter, history=history, policy=policy))
    assert due is not None
    assert len([time for time in history.times if time + policy.window > due]) < policy.budget
