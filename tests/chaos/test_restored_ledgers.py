"""A worker goes on after a backup, its disk is lost, and the backup is restored: no command runs twice.

`Plant.check` (conftest) checks executions, results and audit log after each restore.
"""

import itertools
from collections import Counter

import pytest

POINT = ["site/ahu/p"]
OTHER = ["site/ahu/q"]


@pytest.fixture
def prepared(new_plant):
    """Return a function that creates a plant with commands that end at once, later, and with holds."""

    def prepared():
        plant = new_plant()
        plant.send(
            plant.command("plain", 10.0),
            plant.command("held", 20.0, hold_ms=4000),
            plant.command("later", 30.0, points=OTHER, not_before=plant.clock().wall + 3_000_000),
            plant.command("last", 40.0, points=OTHER, not_before=plant.clock().wall + 9_000_000),
            plant.command("late", 50.0, ttl=-1.0),
            plant.command("not allowed", 60.0, issuer="nobody"),
        )
        return plant

    return prepared


def run_until_write(plant, number):
    """Run a worker until a write of its ledger, and return the backup of that moment; ``None``: it ended."""
    plant.changelogs.fail(number, plant.Crash(), "after")
    try:
        plant.live().finish()
    except plant.Crash:
        return plant.changelogs.backup()
    return None


@pytest.mark.parametrize("outage", [0, 3600])
def test_after_a_restore_of_any_moment_no_command_is_executed_twice_and_each_has_one_end(prepared, outage):
    states: Counter[tuple[str, str, str]] = Counter()
    for number in itertools.count(1):
        plant = prepared()
        backup = run_until_write(plant, number)
        if backup is None:
            break
        plant.live().finish()  # the worker goes on: everything that waited is executed
        plant.send(plant.command("unknown to the backup", 70.0))
        plant.live().finish()
        known, plant.log = plant.log, plant.log[:-1]  # the log is of the same moment as the ledger
        executed = list(plant.device.sets)
        plant.clock.pass_(outage)
        plant.changelogs.restore(backup, plant.clock.true)
        plant.live().finish()
        for record in known:  # their senders had no answer, and send them again
            plant.send(record.value)
        life = plant.live()
        life.finish()
        assert plant.device.sets == executed
        check(plant)
        states.update((name, end["state"], end["reason_code"]) for name, end in final_ends(plant))
        plant.clock.pass_(11)  # max.clock.skew.ms after the restore
        plant.send(plant.command("new", 80.0))
        plant.live().finish()
        assert plant.sets_of(80.0) == POINT
    assert number > 10
    assert {("later", "UNKNOWN", "RESTORED"), ("later", "SUCCEEDED", "")} <= states.keys()
    assert {state for state in states if state[0] == "unknown to the backup"} == {
        ("unknown to the backup", "REJECTED", "FORGOTTEN")
    }


def final_ends(plant):
    return [(name, ends[-1]) for name, ends in plant.ends().items()]


def check(plant):
    """No write twice; one end that uses up the id; and nothing is denied that was done."""
    executions = Counter((point, value) for point, value, _ in plant.device.sets)
    assert [what for what, times in executions.items() if times > 1] == []
    for name, ends in plant.ends().items():
        kept = [
            end for end in ends if end["reason_code"] not in ("FORGOTTEN", "POLICY_DENIED", "NOT_ALLOWED")
        ]
        assert len(kept) <= 1, (name, kept)
        done = [w["value"] for w in plant.sent[name]["writes"] if plant.sets_of(w["value"])]
        for end in kept:
            assert not done or "NOT_WRITTEN" not in [w["outcome"] for w in end["writes"]], end


def test_a_restored_hold_is_reverted_only_if_its_point_still_reads_what_it_wrote(prepared):
    """The backup has the hold. After it the hold ended, and another command wrote the point."""
    plant = prepared()
    life = plant.live()
    life.work()
    assert plant.device.values[POINT[0]] == 20.0
    backup = plant.changelogs.backup()
    plant.clock.pass_(5)
    life.settle()
    assert plant.device.reverts == [(POINT[0], 20.0)]
    plant.send(plant.command("after the backup", 24.0))
    plant.live().finish()
    reverts = list(plant.device.reverts)
    plant.changelogs.restore(backup, plant.clock.true)
    plant.log.pop()
    plant.live().finish()
    assert plant.device.reverts == reverts
    assert plant.device.values[POINT[0]] == 24.0


def test_a_restored_hold_that_was_never_reverted_is_reverted(prepared):
    plant = prepared()
    plant.live().work()
    backup = plant.changelogs.backup()
    plant.clock.pass_(100)  # the worker was down since the backup
    plant.changelogs.restore(backup, plant.clock.true)
    plant.live().finish()
    assert plant.device.reverts == [(POINT[0], 20.0)]


def test_a_clock_in_doubt_after_a_restore_decides_nothing(prepared):
    plant = prepared()
    run_until_write(plant, 6)
    backup = plant.changelogs.backup()
    plant.live().finish()
    executed = list(plant.device.sets)
    plant.clock.restart_computer()
    plant.clock.set_back = 3600 * 1_000_000
    plant.changelogs.restore(backup, plant.clock.true - plant.clock.set_back)
    life = plant.live()
    for record in list(plant.log):
        plant.send(record.value)
    assert not life.take()
    life.settle()
    assert plant.device.sets == executed
    plant.clock.set_back = 0
    plant.live().finish()
    assert plant.device.sets == executed
    check(plant)
