"""Which time is believed, and what an entry's times mean when a clock was set."""

from collections import Counter
from typing import Any

import pytest
from typer.testing import CliRunner

from tieline_connectors.command.cli.app import command
from tieline_connectors.command.execution.clock_sources import ClockConfirmation, synchronized_by_ntp
from tieline_connectors.command.execution.wall_clock import WallClock, read_clocks
from tieline_connectors.command.model.clock import BelievedClock, ClockWatch, Now
from tieline_connectors.command.model.entry import LedgerEntry
from tieline_connectors.command.model.ledger import CommandLedger, Retention
from tieline_connectors.command.model.partition_note import PartitionNote, add_times
from tieline_connectors.command.rules import arrival, holds, outcome, start
from tieline_connectors.command.rules.decisions import Accept, Answer, CallResult, NotYet, Revert, Start, Wait

decide_arrival: Any = arrival.decide_arrival
decide_outcome: Any = outcome.decide_outcome
decide_start: Any = start.decide_start

SECOND = 1_000_000
DAY = 86_400 * SECOND
T0 = 1_800_000_000 * SECOND
UP = 5_000 * SECOND
"""What the monotonic clock says at T0."""
STEPS = [2, 4, 3600, 86_400, 32 * 86_400, 366 * 86_400 * 5]


class Computer:
    """Its clocks, and the watch of the process that runs on it now."""

    def __init__(self, believe=120, stale=310):
        self.true, self.set_by = T0, 0
        self.new_watch = lambda: ClockWatch(believe * SECOND, stale * SECOND)
        self.watch = self.new_watch()
        self.now()

    def now(self):
        return self.watch.read(self.true + self.set_by, UP + self.true - T0, "boot")

    def go_on(self, seconds):
        for _ in range(seconds):
            self.true += SECOND
            self.now()
        return self.now()

    def restart(self, *clocks):
        self.watch = self.new_watch()
        self.now()
        for clock in clocks:
            self.watch.restore(clock)
        return self.now()

    @property
    def right(self):
        return self.true - (UP + self.true - T0)


@pytest.fixture
def computer():
    return Computer()


@pytest.mark.parametrize("step", [*STEPS, *(-step for step in STEPS)])
def test_a_clock_that_was_set_is_in_doubt_and_the_former_time_continues_until_it_is_back(computer, step):
    computer.go_on(10)
    computer.set_by = step * SECOND
    during = computer.go_on(4)
    assert during.doubt
    assert (during.wall, during.raw_wall) == (computer.true, computer.true + step * SECOND)
    computer.set_by = 0
    after = computer.now()
    assert (after.doubt, after.wall, after.earlier_wall) == ("", computer.true, 0)


@pytest.mark.parametrize("step", [*STEPS, *(-step for step in STEPS)])
def test_a_clock_that_keeps_its_new_time_is_believed_in_the_end(computer, step):
    computer.set_by = step * SECOND
    computer.now()
    assert computer.go_on(119).doubt
    after = computer.go_on(1)
    assert (after.doubt, after.wall) == ("", computer.true + step * SECOND)
    assert after.earlier_wall == (computer.true if step < 0 else 0)
    assert computer.go_on(320).earlier_wall == 0


def test_a_clock_that_is_set_again_and_again_is_not_believed(computer):
    for step in range(1, 50):
        computer.set_by = step * 3 * SECOND
        assert computer.go_on(20).doubt


def test_small_steps_add_up_to_a_doubt(computer):
    for _ in range(20):
        computer.set_by += SECOND // 2
        computer.go_on(1)
    assert computer.now().doubt


def test_a_clock_that_is_only_slowed_down_or_sped_up_is_followed(computer):
    for _ in range(20_000):
        computer.set_by += 400  # 400 in a million
        assert not computer.go_on(1).doubt
    now = computer.now()
    assert abs(now.wall - now.raw_wall) < SECOND // 100


def test_a_clock_that_returns_to_where_it_was_believed_is_believed_at_once(computer):
    computer.set_by = DAY
    computer.go_on(200)
    computer.set_by = 0
    now = computer.now()
    assert (now.doubt, now.wall) == ("", computer.true)
    assert now.earlier_wall == computer.true + DAY


def test_the_time_in_which_a_process_stood_still_does_not_make_what_has_waited_new(computer):
    computer.set_by = -7200 * SECOND
    computer.go_on(130)
    computer.true += 10_000 * SECOND
    assert computer.now().earlier_wall


def test_a_clock_before_this_version_was_built_is_corrected_at_once():
    watch = ClockWatch(120 * SECOND, 310 * SECOND, T0)
    watch.read(T0 - DAY, 0)
    assert not watch.read(T0 + DAY, SECOND).doubt


@pytest.mark.parametrize("step", [4, 86_400, -4, -7200])
def test_a_step_while_nothing_ran_is_seen_by_what_the_ledger_knows_of_this_boot(computer, step):
    believed = BelievedClock(computer.right, UP)
    computer.true += 100 * SECOND
    computer.set_by = step * SECOND
    now = computer.restart(believed)
    assert now.doubt
    assert now.wall == computer.true
    computer.set_by = 0
    assert not computer.now().doubt


def test_the_latest_that_is_known_of_a_boot_counts(computer):
    older, newer = BelievedClock(computer.right - DAY, UP - SECOND), BelievedClock(computer.right, UP)
    computer.true += SECOND
    assert not computer.restart(older, newer).doubt
    assert not computer.restart(newer, older).doubt
    assert computer.restart(older).doubt


def test_what_was_vouched_for_is_believed_at_once(computer):
    computer.set_by = -7200 * SECOND
    computer.go_on(3)
    computer.watch.confirm(computer.true + computer.set_by, UP + computer.true - T0)
    now = computer.now()
    assert (now.doubt, now.wall, now.earlier_wall) == ("", computer.true - 7200 * SECOND, computer.true)


# What is decided meanwhile.


@pytest.fixture
def conditions(given, computer):
    """The situation on that computer."""

    def conditions():
        return given.conditions()._replace(now=computer.now())

    return conditions


@pytest.fixture
def held(given, computer, conditions):
    """A ledger with a command that holds its point for an hour."""
    ledger = CommandLedger((), computer.now())
    accept = decide_arrival(given.command(hold_ms=3_600_000), given.T0, ledger, conditions())
    ledger.put(accept.entry)
    start = decide_start(accept.entry, accept.deadline, {}, ledger, conditions())
    ledger.put(start.entry)
    calls = {given.POINT: CallResult("DONE")}
    end = decide_outcome(start.entry, calls, {}, {}, {}, computer.now().wall)
    ledger.put(end.entry)
    return ledger


@pytest.mark.parametrize("believed", [False, True])
@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize("step", [*STEPS, *(-step for step in STEPS)])
def test_a_hold_ends_after_its_time_whatever_the_clock_says(
    held, computer, conditions, step, restarted, believed
):
    ledger, (entry,) = held, held
    computer.set_by = step * SECOND
    computer.go_on(200 if believed else 4)
    if restarted:
        ledger = CommandLedger(
            [LedgerEntry.from_value(entry.to_value())], computer.restart(ledger.last_clock("boot"))
        )
    ledger.update_clock(computer.now())
    assert isinstance(holds.decide_hold(entry, ledger, conditions()), NotYet)
    assert ledger.due(computer.now().wall) == []
    computer.true = T0 + 3600 * SECOND - 1
    ledger.update_clock(computer.now())
    assert isinstance(holds.decide_hold(entry, ledger, conditions()), NotYet)
    computer.true += 2
    ledger.update_clock(computer.now())
    assert isinstance(holds.decide_hold(entry, ledger, conditions()), Revert)
    assert ledger.due(computer.now().wall) == [entry]


@pytest.mark.parametrize("step", [*STEPS, *(-step for step in STEPS)])
def test_nothing_is_accepted_or_started_while_the_clock_is_in_doubt(given, computer, conditions, step):
    ledger = CommandLedger((), computer.now())
    first = decide_arrival(given.command(), given.T0, ledger, conditions())
    ledger.put(first.entry)
    computer.set_by = step * SECOND
    computer.go_on(4)
    waits = decide_arrival(given.command(command_id="c2"), given.T0, ledger, conditions())
    assert isinstance(waits, Wait)
    assert waits.code == "CLOCK_UNTRUSTED"
    assert isinstance(decide_start(first.entry, first.deadline, {}, ledger, conditions()), Wait)
    computer.set_by = 0
    assert isinstance(decide_arrival(given.command(command_id="c2"), given.T0, ledger, conditions()), Accept)
    assert isinstance(decide_start(first.entry, first.deadline, {}, ledger, conditions()), Start)


@pytest.mark.parametrize("days", [1, 32])
def test_times_that_a_clock_ahead_has_written_stop_nothing_when_it_is_right_again(
    given, computer, conditions, days
):
    """Also after a restart, and without anybody doing anything."""
    computer.set_by = days * DAY
    computer.watch = computer.new_watch()  # it was wrong from the beginning
    ahead = computer.now()
    ledger = CommandLedger((), ahead)
    first = decide_arrival(
        given.command(issued_at=ahead.wall, expires_at=ahead.wall + 60 * SECOND), None, ledger, conditions()
    )
    ledger.put(first.entry)
    start = decide_start(first.entry, first.deadline, {}, ledger, conditions())
    ledger.put(start.entry)
    computer.set_by = 0
    computer.true += SECOND
    now = computer.restart(ledger.last_clock("boot"))
    assert now.doubt
    computer.go_on(120 + 320)
    ledger = CommandLedger(list(ledger), computer.now())
    fresh = given.command(command_id="c2", issued_at=computer.true, expires_at=computer.true + 60 * SECOND)
    accept = decide_arrival(fresh, None, ledger, conditions())
    assert isinstance(accept, Accept)
    assert isinstance(decide_start(accept.entry, accept.deadline, {}, ledger, conditions()), Start)


def test_what_has_waited_unread_is_not_executed_because_the_clock_went_back(given, computer, conditions):
    ledger = CommandLedger((), computer.now())
    computer.true += 7200 * SECOND  # nothing was read for two hours
    computer.now()
    computer.set_by = -7200 * SECOND
    computer.now()
    computer.go_on(125)
    unread = given.command(issued_at=T0 + 100 * SECOND, expires_at=T0 + 160 * SECOND)
    end = decide_arrival(unread, None, ledger, conditions())
    assert (end.result.state, end.result.reason_code) == ("EXPIRED", "EXPIRED")


# Forgetting.


def forget_all(ledger, now):
    gone = ledger.removable(now.wall, Retention(30 * DAY, 310 * SECOND))
    ledger.note = ledger.note_after_removal(gone)
    ledger.remove(gone, now.wall)
    return gone


def test_a_command_that_a_wrong_clock_has_forgotten_is_refused_and_a_new_one_is_not(
    given, computer, conditions
):
    ledger = CommandLedger((), computer.now())
    first = decide_arrival(given.command(), given.T0, ledger, conditions())
    ledger.put(
        decide_start(first.entry, first.deadline, {}, ledger, conditions()._replace(killed="drill")).entry
    )
    computer.set_by = 32 * DAY
    assert forget_all(ledger, given.conditions(32 * 86_400).now) == ["c1"]
    computer.set_by = 0
    computer.true += 10 * SECOND
    again = decide_arrival(given.command(), given.T0, ledger, conditions())
    assert isinstance(again, Answer)
    assert again.result.reason_code == "FORGOTTEN"
    new = given.command(command_id="new", issued_at=given.T0 + 1)
    assert isinstance(decide_arrival(new, None, ledger, conditions()), Accept)


@pytest.mark.parametrize(
    ("later", "changes"),
    [(32 * DAY, {}), (10 * SECOND, {"killed": "drill"}), (-60 * SECOND, {}), (10 * SECOND, {"denied": True})],
)
def test_a_forgotten_command_that_was_executed_gets_no_end_that_denies_it(
    given, computer, conditions, later, changes
):
    """Neither EXPIRED nor a rejection: the ledger does not know any more that it succeeded."""
    ledger = CommandLedger((), computer.now())
    accept = decide_arrival(given.command(), None, ledger, conditions())
    begun = decide_start(accept.entry, accept.deadline, {}, ledger, conditions())
    done = decide_outcome(begun.entry, {given.POINT: CallResult("DONE")}, {}, {}, {}, computer.now().wall)
    for step in (accept, begun, done):
        ledger.put(step.entry)
    assert forget_all(ledger, given.conditions(32 * 86_400).now) == ["c1"]
    now = given.conditions(later / SECOND)._replace(killed=changes.get("killed"))
    if "denied" in changes:
        now = now._replace(policy=given.policy({**given.RULE, "max": 1}))
    again = decide_arrival(given.command(), None, CommandLedger((), now.now, ledger.note), now)
    assert isinstance(again, Answer)
    assert (again.result.state, again.result.reason_code) == ("REJECTED", "FORGOTTEN")


def test_spans_hold_every_time_are_few_and_keep_a_time_far_ahead_apart():
    times = [T0 + n * n * SECOND for n in range(300)]
    spans: Any = ()
    for first in range(0, 300, 7):
        spans = add_times(spans, times[first : first + 7])
    spans = add_times(spans, [T0 + 32 * DAY])
    note = PartitionNote(forgotten=spans)
    assert len(spans) <= 16
    assert all(map(note.has_forgotten, [*times, T0 + 32 * DAY]))
    assert not note.has_forgotten(T0 + DAY + 3600 * SECOND)
    assert not note.has_forgotten(T0 - 1)


def test_forgetting_an_unknown_issuers_command_leaves_no_note(given, computer, conditions):
    ledger = CommandLedger((), computer.now())
    policy = given.policy({**given.RULE, "issuers": "boss"})
    refused = decide_arrival(given.command(), given.T0, ledger, conditions()._replace(policy=policy))
    ledger.put(refused.entry)
    forget_all(ledger, given.conditions(400).now)
    assert (len(ledger), ledger.note.forgotten) == (0, ())


def test_a_clock_note_is_read_back_and_an_invalid_one_is_rejected():
    note = PartitionNote(((1, 2), (5, 9)), "boot", BelievedClock(3, 4), 3)
    assert PartitionNote.from_value(note.to_value()) == note
    assert PartitionNote.from_value(None) == PartitionNote()
    with pytest.raises(ValueError, match="note"):
        PartitionNote.from_value({"command": "[]"})


# What vouches for a clock.


def wall_clock(tmp_path, computer, ntp=False):
    word = ClockConfirmation.path_beside(tmp_path / "audit.log")
    counted: Counter[str] = Counter()

    def clocks():
        return Now(computer.true + computer.set_by, UP + computer.true - T0, boot="boot")

    def confirmed(now):
        confirmation = ClockConfirmation.read(word)
        return ntp or (confirmation is not None and confirmation.covers(now))

    clock = WallClock(
        computer.new_watch(), clocks, confirmed, lambda name, number: counted.update({name: number})
    )
    clock.now()
    return clock, word, clocks, counted


def test_an_operators_confirmation_ends_a_doubt_and_expires_when_the_clock_is_set_again(computer, tmp_path):
    clock, word, clocks, counted = wall_clock(tmp_path, computer)
    computer.set_by = DAY
    assert clock.now().doubt
    ClockConfirmation("boot", clocks().offset).write(word)
    computer.true += SECOND
    now = clock.now()
    assert (now.doubt, now.wall, now.confirmed) == ("", computer.true + DAY, True)
    computer.true += SECOND
    computer.set_by = 2 * DAY
    now = clock.now()
    assert now.doubt
    assert not now.confirmed
    assert counted == {"clock.untrusted": 2, "clock.trusted": 1}
    clock.close()
    clock.close()
    assert counted == {"clock.untrusted": 2, "clock.trusted": 2}


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"boot": "boot", "offset": "x"}', "[" * 900])
def test_an_invalid_confirmation_has_no_effect(tmp_path, content):
    (tmp_path / "word").write_text(content)
    assert ClockConfirmation.read(tmp_path / "word") is None
    assert ClockConfirmation.read(tmp_path / "not there") is None


def test_a_ledger_from_before_a_restart_that_is_ahead_stops_nothing_once_the_clock_is_vouched_for(
    given, computer, conditions
):
    computer.set_by = DAY
    computer.watch = computer.new_watch()
    ahead = given.command(issued_at=T0 + DAY, expires_at=T0 + DAY + 60 * SECOND)
    ledger = CommandLedger((), computer.now())
    accept = decide_arrival(ahead, None, ledger, conditions())
    ledger.put(accept.entry)
    ledger.put(decide_start(accept.entry, accept.deadline, {}, ledger, conditions()).entry)
    limits = {"per_device": {"commands": 1, "minutes": 60}}
    computer.set_by = 0
    computer.true += 10 * SECOND
    right = Now(computer.true, 5 * SECOND, boot="the next boot")
    ledger = CommandLedger(list(ledger), right)
    fresh = given.command(command_id="c2", issued_at=computer.true, expires_at=computer.true + 60 * SECOND)
    here = given.conditions()._replace(now=right)
    waits = decide_arrival(fresh, None, ledger, here)
    assert isinstance(waits, Wait)
    assert "tieline command clock trust" in waits.reason
    here = here._replace(now=right._replace(confirmed=True))
    ledger.update_clock(here.now)
    assert isinstance(decide_arrival(fresh, None, ledger, here), Accept)
    limited = here._replace(policy=given.policy(limits=limits))
    assert decide_arrival(fresh, None, ledger, limited).result.reason_code == "RATE_LIMIT"
    later = Now(right.wall + 3601 * SECOND, right.monotonic + 3601 * SECOND, boot=right.boot, confirmed=True)
    newer = given.command(command_id="c3", issued_at=later.wall, expires_at=later.wall + 60 * SECOND)
    ledger.update_clock(later)
    assert isinstance(decide_arrival(newer, None, ledger, limited._replace(now=later)), Accept)


def test_the_command_line_confirms_the_clock_at_its_present_time(tmp_path):
    (tmp_path / "audit.log").touch()
    ended = CliRunner().invoke(command, ["clock", "trust", str(tmp_path / "audit.log")])
    assert ended.exit_code == 0, ended.output
    word = ClockConfirmation.read(ClockConfirmation.path_beside(tmp_path / "audit.log"))
    assert word is not None
    assert word.covers(read_clocks())
    assert CliRunner().invoke(command, ["clock", "trust", str(tmp_path / "none")]).exit_code == 2


def test_the_kernel_confirms_only_its_own_clock():
    right = read_clocks()
    assert not synchronized_by_ntp(right._replace(wall=right.wall + DAY))
