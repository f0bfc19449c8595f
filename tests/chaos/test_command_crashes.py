"""A worker of commands dies before and after every write and every call, and another one continues.

A plant must never see a write twice, a write at or after its expiry, or a command that does not have exactly
one terminal result. `Plant.check` (conftest) checks all of this after each death.
"""

import itertools
import json
import os
import random
from collections import Counter

import pytest

from tieline.api import FencedError, RetriableError

ENDS = {
    "plain": "SUCCEEDED",
    "both": "SUCCEEDED",
    "second refused": "FAILED",
    "held": "SUCCEEDED",
    "not allowed": "REJECTED",
    "later": "SUCCEEDED",
    "late": "EXPIRED",
    "given back": "SUCCEEDED",
    "dry": "SUCCEEDED",
    "malformed": "REJECTED",
    "t-0-4": "REJECTED",
}
KINDS = ("write", "call", "audit")
WHEN = ("before", "after")


@pytest.fixture
def prepared(new_plant):
    """Return a function that creates a plant with one command of every kind, each with its own value."""

    def prepared():
        plant = new_plant()
        both = ["site/ahu/p", "site/ahu/q"]
        plant.send(
            plant.command("plain", 10.0),
            plant.command("both", 20.0, points=both),
            plant.command("second refused", 30.0, points=both),
            plant.command("plain", 11.0),  # a conflict
            b"\xff\x00",
            plant.command("held", 40.0, hold_ms=5000),
            plant.command("not allowed", 50.0, issuer="nobody"),
            plant.command("later", 60.0, points=both[1:], not_before=plant.clock().wall + 3_000_000),
            plant.command("late", 70.0, ttl=-1.0),
            plant.command("given back", points=both[1:], action="REVERT"),
            plant.command("dry", 80.0, dry_run=True),
            {"command_id": "malformed"},
        )
        plant.log.append(plant.log[0]._replace(offset=len(plant.log)))  # the first one, repeated

        def refuse_the_second(number, kind, value):
            return "refused" if (kind, value) == ("set", 30.0) and plant.sets_of(30.0) else "done"

        plant.device.fate = refuse_the_second
        return plant

    return prepared


def plan_death(plant, kind, number, when):
    """Let the worker die at the ``number``-th write, call or audit line from now."""
    fate = "crash" if when == "before" else "crash_after"
    if kind == "write":
        plant.changelogs.fail(number, plant.Crash(), when)
    elif kind == "call":
        last, inner = plant.device.calls + number, plant.device.fate

        def fatal(n, kind, value):
            intended = inner(n, kind, value)
            if n != last:
                return intended
            return fate if intended == "done" else "crash"  # refused, and the worker dies before it knows

        plant.device.fate = fatal
    else:
        last = plant.audits + number
        plant.audit_fate = lambda n: fate if n == last else "done"


def run_lives(plant, *deaths):
    """Run one life for each death, and a last one to the end; return how many deaths happened."""
    died = 0
    for death in [*deaths, None]:
        if death is not None:
            plan_death(plant, *death)
        try:
            plant.live().finish()
        except plant.Crash:
            died += 1
    plant.check()
    return died


def final_states(plant):
    return {name: ends[0]["state"] for name, ends in plant.ends().items()}


def test_without_a_crash_every_command_has_its_expected_result(prepared):
    plant = prepared()
    assert run_lives(plant) == 0
    assert final_states(plant) == ENDS
    assert plant.device.reverts == [("site/ahu/p", 30.0), ("site/ahu/q", 20.0), ("site/ahu/p", 40.0)]


@pytest.mark.parametrize("when", WHEN)
@pytest.mark.parametrize("kind", KINDS)
def test_a_crash_at_every_write_and_call_does_nothing_twice_and_leaves_nothing_without_an_end(
    prepared, kind, when
):
    for number in itertools.count(1):
        plant = prepared()
        died = run_lives(plant, (kind, number, when))
        # A hold ends once: its point was never reverted while it had another value.
        assert plant.device.reverts.count(("site/ahu/p", 40.0)) <= 1
        unlike = {name: state for name, state in final_states(plant).items() if state != ENDS[name]}
        assert set(unlike.values()) <= {"UNKNOWN"}
        assert len(unlike) <= 1
        if not died:
            break
    assert number > {"write": 25, "call": 25, "audit": 25}[kind]


@pytest.mark.parametrize("seed", range(60))
def test_several_crashes_at_random_points_do_nothing_twice(prepared, seed):
    """Reproduce one with ``-k "random_points and 17"``."""
    dice = random.Random(seed)
    plant = prepared()
    deaths = [
        (dice.choice(KINDS), dice.randint(1, 30 // (n + 1)), dice.choice(WHEN))
        for n in range(dice.choice([2, 2, 2, 3, 5]))
    ]
    run_lives(plant, *deaths)
    assert plant.device.reverts.count(("site/ahu/p", 40.0)) <= 1


@pytest.mark.parametrize("when", WHEN)
def test_a_ledger_write_without_an_answer_is_repeated_unchanged(prepared, when):
    """This also holds if the write took effect: published results stay the same."""
    for number in itertools.count(1):
        plant = prepared()
        plant.changelogs.fail(number, RetriableError("no answer"), when)
        before = plant.changelogs.writes
        assert run_lives(plant) == 0
        assert final_states(plant) == ENDS
        if plant.changelogs.writes - before < number:
            break


def test_a_rejected_command_stays_rejected_if_the_answer_to_its_ledger_write_is_lost(new_plant):
    plant = new_plant()
    plant.send(plant.command("one", 10.0), plant.command("two", 20.0, issuer="nobody"))
    (plant.folder / "kill").write_text("fire")
    life = plant.live()
    plant.changelogs.fail(1, RetriableError("no answer"), "after")
    assert not life.take(2)
    (plant.folder / "kill").unlink()
    life.finish()
    plant.check()
    assert final_states(plant) == {"one": "REJECTED", "two": "REJECTED"}
    assert plant.device.sets == []


@pytest.mark.parametrize("seconds", [0, 11, 70])
@pytest.mark.parametrize("kind", ["call", "audit"])
def test_a_worker_suspended_at_any_step_while_another_takes_over_does_nothing_twice(prepared, kind, seconds):
    """11 s is longer than its claim, for which a new owner waits; 70 s is longer than every expiry."""
    for number in itertools.count(1):
        plant = prepared()
        was_suspended = False
        inner = plant.device.fate

        def suspend(n, plant=plant, number=number):
            nonlocal was_suspended
            if n == number and not was_suspended:
                was_suspended = True
                plant.clock.pass_(seconds)
                plant.live("second.log").finish()

        def fate(n, what, value, inner=inner, suspend=suspend):
            suspend(n)
            return inner(n, what, value)

        if kind == "call":
            plant.device.fate = fate
        else:
            plant.audit_fate = lambda n, suspend=suspend: suspend(n) or "done"
        first = plant.live()
        try:
            first.finish()
        except (FencedError, AssertionError):
            assert was_suspended
        plant.check()
        assert plant.device.reverts.count(("site/ahu/p", 40.0)) <= 1
        if not was_suspended:
            break


def test_a_task_that_loses_its_partition_during_any_call_and_gets_it_back_at_once_ends_nothing_twice(
    prepared,
):
    """The scheduler comes back from the call with an entry that the same task has read again since."""
    for number in itertools.count(1):
        plant = prepared()
        inner, reopened = plant.device.fate, False
        first = plant.live()

        def fate(n, what, value, plant=plant, number=number, inner=inner, first=first):
            nonlocal reopened
            if n == number:
                reopened = True
                first.task.close([plant.AT], lost=True)
                first.task.open([plant.AT])
            return inner(n, what, value)

        plant.device.fate = fate
        first.finish()
        plant.check()
        assert plant.device.reverts.count(("site/ahu/p", 40.0)) <= 1
        if not reopened:
            break
    assert number > 25


@pytest.mark.parametrize("when", WHEN)
@pytest.mark.parametrize("kind", KINDS)
def test_a_crash_while_a_stopping_worker_reverts_its_holds_reverts_nothing_twice(new_plant, kind, when):
    for number in itertools.count(1):
        plant = new_plant()
        plant.send(
            *(plant.command(p, n + 1.0, points=[p], hold_ms=9000) for n, p in enumerate(("s/a/p", "s/a/q")))
        )
        plant.device.values |= {"s/a/p": 0.5, "s/a/q": 0.5}
        (plant.folder / "policy.yaml").write_text(
            "{version: 1, rules: [{issuers: boss, points: s/a/*, type: float, min: 0, max: 9}]}"
        )
        life, died = plant.live(), False
        life.work()
        plan_death(plant, kind, number, when)
        try:
            life.task.scheduler.interrupt(revert_time=10.0)
            assert life.task.scheduler.step() == 0.0
        except plant.Crash:
            died = True
        if not died:
            assert sorted(plant.device.reverts) == [("s/a/p", 1.0), ("s/a/q", 2.0)]
        plant.audit_fate = lambda n: "done"
        plant.device.fate = lambda n, kind, value: "done"
        plant.live().finish()
        plant.check()
        assert Counter(plant.device.reverts) == Counter([("s/a/p", 1.0), ("s/a/q", 2.0)])
        if not died:
            break
    assert number > 4


def read_audit_log(plant):
    """Count the stored steps in the audit log, and the lines that are not steps of the ledger.

    As docs/reference/connectors/command-sink.md explains, a line whose number is above that of a later
    TAKEN_OVER was decided and never stored.
    """
    stored: list[tuple[int, tuple[str, str, int]]] = []
    others = []
    for line in (plant.folder / "audit.log").read_text().splitlines():
        event = json.loads(line)["event"]
        step = event.get("command_id"), event["state"], event.get("at")
        if event["state"] == "TAKEN_OVER":
            stored = [(number, earlier) for number, earlier in stored if number <= event["stored_at"]]
        elif event["stored_at"] is None:
            others.append(step)
        else:
            stored.append((event["stored_at"], step))
    return Counter(step for _, step in stored), Counter(others)


@pytest.mark.parametrize(("kind", "when"), [("audit", "before"), ("audit", "after"), ("write", "after")])
def test_a_crash_between_the_audit_log_and_the_ledger_leaves_one_line_for_each_step(prepared, kind, when):
    for number in itertools.count(1):
        plant = prepared()
        died = run_lives(plant, (kind, number, when))
        stored, others = read_audit_log(plant)
        published = Counter((r["command_id"], r["state"], r["at"]) for r in plant.results())
        of_the_ledger = [r for r in plant.results() if r["reason_code"] not in ("MALFORMED", "CONFLICT")]
        steps = {(r["command_id"], r["state"], r["at"]) for r in of_the_ledger}
        reverting = [step for step in stored if step[1] == "REVERTING"]
        assert [step[0] for step in reverting] == ["held"]
        assert stored == Counter({*steps, *reverting})
        assert (published - stored) - others == Counter(), "every result has a line, repeated ones included"
        if not died:
            break
    assert number > 20


def test_the_audit_line_of_a_device_write_is_on_disk_before_the_write(prepared, monkeypatch):
    plant = prepared()
    synced = b""
    log = plant.folder / "audit.log"

    def fsync(file):
        nonlocal synced
        if os.path.samestat(os.fstat(file), log.stat()):
            synced = log.read_bytes()

    seen = []
    inner = plant.device.fate

    def fate(number, kind, value):
        if kind != "get":
            assert synced == log.read_bytes()
            last = json.loads(synced.splitlines()[-1])["event"]
            seen.append((kind, last["state"]))
        return inner(number, kind, value)

    plant.device.fate = fate
    log.touch()
    monkeypatch.setattr(os, "fsync", fsync)
    run_lives(plant)
    assert Counter(seen) == {("set", "EXECUTING"): 7, ("revert", "EXECUTING"): 2, ("revert", "REVERTING"): 1}


@pytest.mark.parametrize("when", WHEN)
def test_an_uncertain_ledger_write_is_settled_before_the_executor_stores_anything_else(new_plant, when):
    plant = new_plant()
    later = plant.clock().wall + 1_000_000
    plant.send(plant.command("due", 10.0, not_before=later), plant.command("refused", 20.0, issuer="nobody"))
    life = plant.live()
    assert life.take()
    plant.changelogs.fail(1, RetriableError("no answer"), when)
    assert not life.take()
    plant.clock.pass_(2)
    life.settle()
    life.finish()
    plant.check()
    stored, _ = read_audit_log(plant)
    assert stored == Counter((r["command_id"], r["state"], r["at"]) for r in plant.results())
    assert [name for name, state, _ in stored if state == "REJECTED"] == ["refused"]
