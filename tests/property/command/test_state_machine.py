"""Commands, faults, crashes and stops in any order; `conftest.Worker` does what the rules decide."""

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from tieline_connectors.command.model.command import TERMINAL, Result

SECOND = 1_000_000
FATES = st.sampled_from(["done", "refused", "not_sent", "lost", "answer_lost", "late", "unreadable"])
SECONDS = st.sampled_from([0, 1, 4, 15, 45, 700])
PAUSES = st.lists(st.tuples(st.integers(0, 24), SECONDS), max_size=2)


class CommandsAndFaults(RuleBasedStateMachine):
    """Whatever happens: one execution at most, one terminal result exactly, and nothing after the expiry."""

    model: Any

    def __init__(self):
        super().__init__()
        model = self.model
        self.world = model.World()
        self.disk = model.Disk()
        self.device = model.Device(self.world)
        self.worker = self.new_worker()
        self.stopped = []
        self.sent = {}
        self.unauthorized = set()

    def new_worker(self):
        return self.model.Worker(self.world, self.disk, self.device)

    @rule(
        again=st.sampled_from([False] * 4 + [True]),
        value=st.sampled_from([1.5, 20.0, 20.0, 30.0, 500.0]),
        both=st.booleans(),
        ttl=st.sampled_from([3600, 3600, 30, 1]),
        wait=st.sampled_from([None, None, 0, 5, 40]),
        hold=st.sampled_from([None, 20]),
        kind=st.sampled_from(["SET"] * 6 + ["REVERT", "dry run", "ahead"]),
    )
    def send(self, again, value, both, ttl, wait, hold, kind):
        """A new command, or another one with an id that was there before."""
        name = str(len(self.sent) - (again and bool(self.sent)))
        command = self.model.command(
            name,
            None if kind == "REVERT" else value,
            issued=self.world.true + (60 * SECOND if kind == "ahead" else 0),
            ttl=ttl,
            wait=wait,
            hold=None if kind == "REVERT" else hold,
            points=self.model.POINTS[: 1 + both],
            dry_run=kind == "dry run",
        )
        if name in self.sent:  # by this, its results and writes differ from those of the first
            command = command._replace(correlation_id=f" again {len(self.disk.log)}")
        self.sent.setdefault(name, command)
        self.disk.log.append((command, self.world.true))

    @rule(data=st.data())
    def send_the_same_again(self, data):
        if self.sent:
            name = data.draw(st.sampled_from(sorted(self.sent)))
            self.disk.log.append((self.sent[name], self.world.true))

    @rule(fates=st.lists(FATES, max_size=6))
    def go_on_until_there_is_nothing_to_do(self, fates):
        self.go_on(200, fates, ())

    @rule(steps=st.integers(1, 25), fates=st.lists(FATES, max_size=4), pauses=PAUSES)
    def go_on(self, steps, fates, pauses):
        """``pauses``: before which steps everything stands still, and for how long."""
        self.world.fates = fates
        for number in range(steps):
            self.world.true += sum(seconds for step, seconds in pauses if step == number) * SECOND
            assert self.worker.step()
            if self.worker.idle:
                break
        self.world.fates = []

    @rule(steps=st.integers(1, 25), fates=st.lists(FATES, max_size=4), pauses=PAUSES)
    def go_on_and_crash(self, steps, fates, pauses):
        self.go_on(steps, fates, pauses)
        self.worker = self.new_worker()

    @rule(steps=st.integers(1, 25), fates=st.lists(FATES, max_size=4), seconds=SECONDS)
    def go_on_and_be_stopped_while_another_takes_over(self, steps, fates, seconds):
        self.go_on(steps, fates, ())
        self.stopped.append(self.worker)
        self.worker = self.new_worker()
        self.time_passes(seconds)

    @rule(steps=st.integers(1, 20))
    def let_the_stopped_go_on(self, steps):
        for worker in list(self.stopped):
            if not all(worker.step() for _ in range(steps)):
                self.stopped.remove(worker)

    @rule(back=st.integers(0, 5))
    def the_offsets_are_set_back(self, back):
        self.disk.offset = max(0, self.disk.offset - back)
        self.worker = self.new_worker()

    @rule(seconds=SECONDS)
    def time_passes(self, seconds):
        self.world.true += seconds * SECOND + 1

    @rule(seconds=st.sampled_from([-86_400, -7200, -600, -30, -4, 0, 0, 0, 4, 30, 600, 86_400, 32 * 86_400]))
    def the_clock_is_set(self, seconds):
        """Ahead or back of what is right, for as long as it stands so."""
        self.watched()
        self.world.set_back = -seconds * SECOND

    @rule(seconds=st.sampled_from([1, 10, 25, 700]))
    def time_passes_for_a_worker_that_goes_on(self, seconds):
        self.go_on_for(seconds)

    @rule()
    def what_is_old_is_forgotten(self):
        self.worker.forget()

    @rule()
    def a_month_passes_until_the_ledger_removes_what_is_old(self):
        """Longer than the retention: the ledger does not know any more what became of old commands."""
        self.go_on_for(1)
        self.world.true += 32 * 86_400 * SECOND
        self.worker.forget()

    @rule()
    def the_computer_is_restarted(self):
        """By then NTP has set its clock."""
        self.world.set_back, self.world.started_up, self.world.boot = 0, self.world.true, self.world.boot + 1
        self.stopped.clear()
        self.worker = self.new_worker()

    @rule(ahead=st.sampled_from([-3600, 0, 3540, 86_400 * 366]), data=st.data())
    def a_stranger_writes(self, ahead, data):
        """Under another command's id or a new one, and with any timestamp."""
        name = data.draw(st.sampled_from([*sorted(self.sent), str(len(self.sent))]))
        command = self.model.command(name, issued=self.world.true)._replace(issuer="stranger")
        self.unauthorized.add(repr(command))
        self.disk.log.append((command, self.world.true + ahead * SECOND))

    def watched(self):
        """A clock that was wrong from the start cannot be distinguished from a right one."""
        self.worker.now()

    def go_on_for(self, seconds):
        for _ in range(seconds):
            self.world.true += SECOND
            for _ in range(2000):
                assert self.worker.step()
                if self.worker.idle:
                    break

    @rule(change=st.sampled_from(["late", "late", "kill", "alive"]))
    def the_world_changes(self, change):
        if change == "late":
            self.what_was_under_way_arrives()
        else:
            self.world.killed = "fire drill" if change == "kill" else None

    def what_was_under_way_arrives(self):
        for point, value in self.device.late:
            self.device.values[point] = value
        self.device.late.clear()

    @invariant()
    def no_write_is_done_twice(self):
        assert [key for key, count in self.device.writes.items() if count > 1] == []

    @invariant()
    def no_write_is_done_after_its_expiry(self):
        assert self.device.expired_writes == []

    @invariant()
    def no_hold_ends_early(self):
        assert self.device.early_reverts == []

    @invariant()
    def no_command_has_two_terminal_results(self):
        assert [id_ for id_, results in self.terminal().items() if len(results) > 1] == []

    @invariant()
    def a_result_says_no_less_than_what_was_done(self):
        for id_, results in self.terminal().items():
            written = {point for command, point in self.device.writes if command == id_}
            for result in results:
                reported = {w.point: w.outcome for w in result.writes}
                assert result.state in ("SUCCEEDED", "MISMATCH", "UNKNOWN", "FAILED") or not written
                if not self.stopped:
                    assert all(reported[point] != "NOT_WRITTEN" for point in written)

    def terminal(self):
        """The terminal results of each command.

        CONFLICT and FORGOTTEN belong to a record: they do not say what became of the command. Another command
        with its id gets a CONFLICT, until the ledger has removed the first.
        """
        results: dict[str, set[Result]] = {id_: set() for id_ in self.sent}
        for result in self.disk.results:
            if result.state in TERMINAL and result.reason_code not in ("CONFLICT", "FORGOTTEN"):
                if result.issuer == "stranger":
                    assert result.state in ("REJECTED", "EXPIRED")
                    continue
                if not result.correlation_id:
                    results[result.command_id].add(result)
        return results

    def teardown(self):
        self.world.set_back, self.world.killed = 0, None
        self.what_was_under_way_arrives()
        self.go_on_for(1000)
        assert self.worker.idle
        forgotten = {r.command_id for r in self.disk.results if r.reason_code == "FORGOTTEN"}
        ends = {id_: len(results) for id_, results in self.terminal().items()}
        assert {id_: count for id_, count in ends.items() if count != 1 and id_ not in forgotten} == {}
        assert all(entry.is_finished for entry in self.worker.ledger)
        self.no_write_is_done_twice()
        self.no_write_is_done_after_its_expiry()


def test_in_any_order_of_events_a_command_runs_at_most_once_and_has_one_terminal_result(model):
    CommandsAndFaults.model = model
    run_state_machine_as_test(
        CommandsAndFaults,
        settings=settings(stateful_step_count=40),
    )
