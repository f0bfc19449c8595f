"""One command, every fault at the device, a crash or a stop at every single step: by list, not by luck."""

from itertools import product

import pytest

from tieline_connectors.command.model.command import TERMINAL

FAULTS = ["done", "refused", "not_sent", "lost", "answer_lost", "late"]
STEPS = 40
"""More than a command with a hold has."""


class Stage:
    """A command in the log, its worker, and a device whose calls meet these fates, in order."""

    def __init__(self, model, fates=(), ttl=3600):
        self.model = model
        self.world, self.disk = model.World(), model.Disk()
        self.device = model.Device(self.world)
        self.device.fates_of_calls = list(fates)
        self.disk.log.append((model.command("c", ttl=ttl, hold=20), model.T0))
        self.worker = self.new_worker()

    def new_worker(self):
        return self.model.Worker(self.world, self.disk, self.device)

    def run(self, worker, steps=10_000):
        """False if it was fenced. The hold is waited for once there is nothing else to do."""
        for _ in range(steps):
            if not worker.step():
                return False
            if worker.idle:
                if all(entry.is_finished for entry in worker.ledger):
                    return True
                self.world.true = max(self.world.true, worker.ledger.next_due() or 0)
        return True

    def check(self):
        writes = self.device.writes
        assert [key for key, count in writes.items() if count > 1] == []
        assert self.device.expired_writes == []
        terminal = [result for result in self.disk.results if result.state in TERMINAL]
        assert len(set(terminal)) == 1
        entry = self.worker.ledger.get("c")
        assert entry.is_finished
        return terminal[0], entry


def written(fault):
    return fault in ("done", "answer_lost", "late")


@pytest.mark.parametrize("crash", range(STEPS))
def test_a_crash_at_any_step_with_any_device_answers_executes_nothing_twice(model, crash):
    for faults in product(FAULTS, repeat=2):
        stage = Stage(model, faults)
        stage.run(stage.worker, crash)
        stage.worker = stage.new_worker()
        assert stage.run(stage.worker)
        result, entry = stage.check()
        done = {point for _, point in stage.device.writes}
        reported = {w.point for w in result.writes if w.outcome != "NOT_WRITTEN"}
        assert done <= reported
        if result.state == "FAILED":
            assert done <= {w.point for w in result.writes if w.outcome == "REVERTED"}
        if result.state == "SUCCEEDED":
            assert done == set(model.POINTS)
            assert entry.hold in ("ENDED", "FAILED")


@pytest.mark.parametrize("stop", range(STEPS))
@pytest.mark.parametrize("seconds", [0, 5, 60, 4000])
def test_a_worker_suspended_at_any_step_while_another_finishes_executes_nothing_twice(model, stop, seconds):
    for fault in FAULTS:
        stage = Stage(model, [fault])
        first = stage.worker
        stage.run(first, stop)
        stage.worker = stage.new_worker()
        stage.world.true += seconds * model.SECOND
        assert stage.run(stage.worker)
        stage.run(first)
        stage.check()


@pytest.mark.parametrize("pause", range(STEPS))
def test_a_worker_suspended_beyond_the_expiry_at_any_step_does_not_write(model, pause):
    stage = Stage(model, ttl=30)
    stage.run(stage.worker, pause)
    before = dict(stage.device.writes)
    stage.world.true += 31 * model.SECOND
    assert stage.run(stage.worker)
    result, _ = stage.check()
    assert dict(stage.device.writes) == before
    assert result.state == ("SUCCEEDED" if before else "EXPIRED")


@pytest.mark.parametrize("crash", range(STEPS))
@pytest.mark.parametrize("and_crash", [False, True])
def test_a_clock_that_is_set_back_does_not_extend_a_deadline(model, crash, and_crash):
    stage = Stage(model, ttl=30)
    stage.run(stage.worker, crash)
    stage.world.set_back = 7200 * model.SECOND
    if and_crash:
        stage.worker = stage.new_worker()
    stage.world.true += 31 * model.SECOND
    for _ in range(100):
        assert stage.worker.step()
    stage.world.set_back = 0
    assert stage.run(stage.worker)
    stage.check()
