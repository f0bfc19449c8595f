"""The computer is restarted, a worker dies at each of its writes, and then the clock is set ahead or back."""

import itertools

import pytest

from tieline.api import RetriableError

DAY = 86_400
HOLD_ENDS = 20
"""Seconds after its start."""


@pytest.fixture
def holding(new_plant):
    """A plant whose computer was restarted while a command held a point and another one waited."""

    def holding():
        plant = new_plant(clock_believe_ms="600000")
        now = plant.clock().wall
        plant.send(
            plant.command("held", 40.0, hold_ms=HOLD_ENDS * 1000),
            plant.command("later", 60.0, points=["site/ahu/q"], ttl=15.0, not_before=now + 12_000_000),
        )
        plant.live().work()
        assert plant.sets_of(40.0)
        plant.clock.pass_(1)
        plant.clock.restart_computer()
        return plant

    return holding


def die_at_write(plant, number):
    """One life in which the write of that number is the last; return whether it came.

    0: it dies after the takeover, before its first step.
    """
    if number == 0:
        plant.live()
        return True
    plant.changelogs.fail(number, plant.Crash(), "after")
    try:
        life = plant.live()
        for _ in range(3):
            life.work()
            plant.clock.pass_(1)
    except plant.Crash:
        return True
    return False


@pytest.mark.parametrize("seconds", [DAY, 40 * DAY, 2, -2, -DAY])
def test_a_clock_set_after_any_write_since_the_restart_ends_no_hold_and_executes_nothing_expired(
    holding, seconds
):
    """The takeover is enough."""
    for number in itertools.count():
        plant = holding()
        plant.send(
            plant.command("rejected", 30.0, issuer="nobody"),
            plant.command("new", 50.0, points=["site/ahu/0"]),
        )
        if not die_at_write(plant, number):
            break
        plant.clock.set_back = -seconds * 1_000_000
        for _ in range(10):
            plant.live().settle()
            plant.clock.pass_(0.5)
        assert plant.device.reverts == []
        plant.clock.pass_(10)
        plant.live().settle()
        assert plant.sets_of(60.0) == []
        plant.clock.set_back = 0
        plant.live().finish()
        plant.check()
        assert plant.device.reverts == [("site/ahu/p", 40.0)]
    assert number > 5


def test_a_clock_that_could_not_be_stored_at_the_takeover_is_stored_with_the_next_step(holding):
    """The broker is away at the takeover, and back when the hold ends; the worker dies in that step."""
    plant = holding()
    plant.clock.pass_(HOLD_ENDS)
    plant.changelogs.fail(1, RetriableError("away"))
    plant.changelogs.fail(2, plant.Crash(), "after")
    with pytest.raises(plant.Crash):
        plant.live().settle()
    plant.clock.set_back = -DAY * 1_000_000
    plant.live()
    task = plant.lives[-1].task
    assert task.scheduler.get(plant.AT).ledger.last_clock("boot 2").offset == plant.clock.booted_at
