"""What a partition stores of the clock that is believed, and when."""

from types import SimpleNamespace

import pytest

from tieline.api import RetriableError, TopicPartition
from tieline.testing.changelogs import Changelogs
from tieline_connectors.command.audit.file import AuditFile
from tieline_connectors.command.execution.partition import CommandPartition, LedgerWrite, ResultTopics
from tieline_connectors.command.execution.wall_clock import WallClock
from tieline_connectors.command.model.clock import BelievedClock, ClockWatch, Now
from tieline_connectors.command.model.partition_note import KEY, PartitionNote
from tieline_connectors.command.model.result_records import ledger_schema
from tieline_connectors.command.rules import arrival
from tieline_connectors.command.rules.decisions import Accept, Start
from tieline_connectors.command.rules.start import decide_start

SECOND = 1_000_000
DAY = 86_400 * SECOND
T0 = 1_800_000_000 * SECOND
BELIEVE, STALE = 60 * SECOND, 300 * SECOND


class Computer:
    """A computer, the ledgers that outlive its workers, and the clock of the worker that runs."""

    def __init__(self, folder):
        self.folder, self.changelogs = folder, Changelogs()
        self.true = self.booted_at = T0
        self.set_by, self.name = 0, "boot 1"
        self.new_worker()

    def new_worker(self):
        watch = ClockWatch(BELIEVE, STALE)
        self.clock = WallClock(watch, self.read, lambda now: False, lambda name, number: None)
        self.audit = AuditFile(self.folder / "audit.log", lambda name, number: None)

    def read(self):
        return Now(self.true + self.set_by, self.true - self.booted_at, boot=self.name)

    def boot(self, name):
        self.name, self.booted_at = name, self.true
        self.restart_worker()

    def restart_worker(self):
        self.audit.close()
        self.new_worker()

    def pass_(self, seconds):
        for _ in range(seconds):
            self.true += SECOND
            self.clock.now()

    def take_over(self, number=0):
        """A partition as `CommandSinkTask.open` takes it over, without its first write."""
        topic_partition = TopicPartition("commands", number)
        changelog = self.changelogs.open(topic_partition, ledger_schema())
        partition = CommandPartition(
            topic_partition, changelog, self.audit, ResultTopics("command-results", ""), self.clock
        )
        return SimpleNamespace(at=topic_partition, partition=partition, update=self.update)

    def update(self, *owned):
        for owner in owned:
            owner.partition.update_clock(self.clock.now())

    def note(self, number=0):
        entries = self.changelogs.entries(TopicPartition("commands", number))
        return PartitionNote.from_value(entries.get(KEY))


@pytest.fixture
def computer(tmp_path):
    computer = Computer(tmp_path)
    yield computer
    computer.audit.close()


def offset(computer):
    return computer.true + computer.set_by - (computer.true - computer.booted_at)


@pytest.mark.parametrize("ahead", [DAY, -DAY, 2 * SECOND])
@pytest.mark.parametrize("boots", [1, 2, 3])
def test_a_clock_that_is_set_after_a_takeover_is_in_doubt_for_the_next_worker(computer, ahead, boots):
    """Although nothing was decided in between, and the computer was started again."""
    for number in range(boots):
        computer.pass_(100)
        computer.boot(f"boot {number + 1}")
        computer.update(computer.take_over())
    right = offset(computer)
    computer.set_by = ahead
    computer.pass_(1)
    computer.restart_worker()
    owned = computer.take_over()
    now = computer.clock.now()
    assert now.doubt
    assert now.offset == right
    computer.update(owned)
    assert computer.note().clock.offset == right


def test_a_takeover_writes_the_clock_once_and_a_step_of_a_command_writes_it_no_more(computer):
    owned = computer.take_over()
    assert computer.changelogs.writes == 0
    for _ in range(3):
        computer.update(owned)
        computer.pass_(10)
    assert computer.changelogs.writes == 1
    computer.restart_worker()
    computer.update(computer.take_over())
    assert computer.changelogs.writes == 1


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_clock_that_could_not_be_stored_is_stored_with_the_next_step_of_a_command(computer, given, when):
    """Also if that step has no answer either, and is repeated: it is repeated unchanged."""
    owned = computer.take_over()
    computer.changelogs.fail(1, RetriableError("no answer"), when, times=2)
    with pytest.raises(RetriableError):
        computer.update(owned)
    accept = arrival.decide_arrival(
        given.command(), None, owned.partition.ledger, given.conditions()._replace(now=computer.clock.now())
    )
    assert isinstance(accept, Accept)
    write = LedgerWrite([accept.entry], [accept.result], 1)
    with pytest.raises(RetriableError):
        owned.partition.store(write)
    computer.pass_(1)
    computer.update(owned)  # while the outcome is unknown, nothing else is written
    owned.partition.store(write)
    assert computer.note() == PartitionNote(boot="boot 1", clock=BelievedClock(T0, 0))
    assert len(computer.changelogs.records) == 1
    assert computer.changelogs.entries(owned.at).keys() == {KEY, "c1"}
    computer.update(owned)
    assert owned.partition.stored_offset() == 1


def test_a_clock_in_doubt_is_in_doubt_for_the_next_owner_of_a_partition_that_arrives_meanwhile(computer):
    """A rebalance brings a partition whose ledger knows no clock of this computer."""
    computer.update(computer.take_over(0))
    computer.set_by = DAY
    computer.pass_(1)
    computer.update(computer.take_over(1))
    computer.restart_worker()
    computer.take_over(1)
    assert computer.clock.now().doubt


def test_what_one_partition_knows_of_the_clock_is_stored_in_all_of_them(computer):
    """A worker that knew no better believes a wrong clock, until it owns a partition that does."""
    computer.update(computer.take_over(0))
    computer.restart_worker()
    computer.set_by = DAY
    computer.pass_(1)
    naive = computer.take_over(1)
    computer.update(naive)
    assert computer.note(1).clock.offset == T0 + DAY
    computer.pass_(1)
    owned = computer.take_over(0)
    assert computer.clock.now().doubt
    computer.update(naive, owned)
    assert computer.note(1).clock.offset == T0
    for order in ((0, 1), (1, 0)):
        computer.pass_(1)
        computer.restart_worker()
        taken = [computer.take_over(number) for number in order]
        assert computer.clock.now().doubt
        computer.update(*taken)


@pytest.mark.parametrize("stale_for", [10, 290])
def test_an_earlier_clock_that_still_counts_is_what_the_next_worker_starts_from(computer, given, stale_for):
    """Also after a command was accepted meanwhile: a clock that went back makes no old command new."""
    owned = computer.take_over()
    computer.update(owned)
    computer.set_by = -30 * SECOND
    computer.pass_(61 + stale_for)
    now = computer.clock.now()
    assert (now.doubt, now.earlier_wall) == ("", computer.true)
    computer.update(owned)
    fresh = given.command(issued_at=now.wall, expires_at=now.wall + 600 * SECOND)
    accept = arrival.decide_arrival(fresh, None, owned.partition.ledger, given.conditions()._replace(now=now))
    assert isinstance(accept, Accept)
    owned.partition.store(LedgerWrite([accept.entry], [accept.result], 1))
    computer.update(owned)
    computer.restart_worker()
    computer.take_over()
    assert computer.clock.now().doubt
    assert computer.clock.now().offset == T0


def test_a_clock_that_only_entries_know_is_stored_before_they_are_removed(computer, given):
    """A ledger of an earlier version, which stored no clock at a takeover."""
    owned = computer.take_over()
    accept = arrival.decide_arrival(
        given.command(), None, owned.partition.ledger, given.conditions()._replace(now=computer.clock.now())
    )
    assert isinstance(accept, Accept)
    owned.partition.store(LedgerWrite([accept.entry], [accept.result], 1))
    assert KEY not in computer.changelogs.entries(owned.at)
    computer.pass_(5)
    computer.restart_worker()
    owned = computer.take_over()
    computer.update(owned)
    assert computer.note() == PartitionNote(boot="boot 1", clock=BelievedClock(T0, 5 * SECOND))


def test_an_entry_from_before_the_boot_that_was_started_in_it_does_not_hide_the_clock(computer, given):
    """Its clock is of this boot, its time of arrival is not."""
    owned = computer.take_over()
    here = given.conditions()
    accept = arrival.decide_arrival(
        given.command(), None, owned.partition.ledger, here._replace(now=computer.clock.now())
    )
    assert isinstance(accept, Accept)
    owned.partition.store(LedgerWrite([accept.entry], [accept.result], 1))
    computer.pass_(10)
    computer.boot("boot 2")
    owned = computer.take_over()
    now = here._replace(now=computer.clock.now())
    start = decide_start(accept.entry, accept.deadline, {}, owned.partition.ledger, now)
    assert isinstance(start, Start)
    owned.partition.store(LedgerWrite([start.entry], [start.result]))
    assert owned.partition.ledger.last_clock("boot 2") is None
    computer.update(owned)
    assert owned.partition.ledger.last_clock("boot 2") == BelievedClock(T0 + 10 * SECOND, 0)
