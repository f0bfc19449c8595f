"""A device that fails is left alone, tried by one command, and trusted again: over restarts, counted."""

import pytest

POLICY = """
version: 1
limits: {breaker: {failures: 3, minutes: 1}}
rules: [{issuers: boss, points: site/*/*, type: float, min: 0, max: 1000000}]
"""


@pytest.fixture
def plant(new_plant):
    plant = new_plant()
    (plant.folder / "policy.yaml").write_text(POLICY)
    plant.device.fate = lambda number, kind, value: "refused" if kind == "set" else "done"
    return plant


def send(plant, life, *names):
    plant.send(*(plant.command(name, float(len(plant.log) + n)) for n, name in enumerate(names)))
    while life.offset < len(plant.log):
        assert life.take(len(plant.log))
    life.settle()


def open_circuits(life):
    return life.context.counters["circuit.opened"] - life.context.counters["circuit.closed"]


def states(plant):
    return {name: (end["state"], end["reason_code"]) for name, (end,) in plant.ends().items()}


@pytest.mark.parametrize("restart", [False, True])
def test_after_failures_in_a_row_a_device_is_left_alone_and_then_tried_by_one(plant, restart):
    def again(life):
        return plant.live() if restart else life

    life = plant.live()
    send(plant, life, "a", "b", "c", "d")  # d was accepted while the circuit was closed
    life = again(life)
    send(plant, life, "e")
    refused, shut = ("FAILED", "DEVICE_REFUSED"), ("REJECTED", "CIRCUIT_OPEN")
    assert states(plant) == {"a": refused, "b": refused, "c": refused, "d": shut, "e": shut}
    plant.clock.pass_(61)
    life = again(life)
    send(plant, life, "f", "g")  # both come when it is tried again, and one of them tries
    assert (states(plant)["f"], states(plant)["g"]) == (refused, shut)
    plant.clock.pass_(61)
    life = again(life)
    plant.device.fate = lambda number, kind, value: "done"
    send(plant, life, "h", "i")
    life = again(life)
    send(plant, life, "j")
    assert {states(plant)[name][0] for name in "hij"} == {"SUCCEEDED"}
    assert open_circuits(life) == 0
    plant.check()


def test_an_open_circuit_is_seen_in_the_counters_also_by_a_new_owner(plant):
    life = plant.live()
    send(plant, life, "a", "b", "c")
    assert open_circuits(life) == 1
    life = plant.live()
    life.settle()
    assert open_circuits(life) == 1
    plant.device.fate = lambda number, kind, value: "done"
    plant.clock.pass_(61)
    send(plant, life, "d")
    assert open_circuits(life) == 0
