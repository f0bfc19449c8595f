"""A model of all that surrounds the rules of commands: what survives, what moves, and what fails.

`Worker.live` does what the rules decide, as the executor does, and yields after every single step: a
generator that is dropped is a crash, one that is left alone is a worker that the system has stopped.
"""

from collections import Counter
from types import SimpleNamespace

import pytest

from tieline_connectors.command.model.clock import CLOCK_STEP, ClockWatch
from tieline_connectors.command.model.command import Defaults
from tieline_connectors.command.model.entry import LedgerEntry
from tieline_connectors.command.model.facts import reading_of
from tieline_connectors.command.model.ledger import CommandLedger, Retention
from tieline_connectors.command.model.parsing import from_value
from tieline_connectors.command.model.partition_note import PartitionNote
from tieline_connectors.command.policy.file import parse
from tieline_connectors.command.rules import holds
from tieline_connectors.command.rules.arrival import decide_arrival
from tieline_connectors.command.rules.checks import monotonic_deadline
from tieline_connectors.command.rules.decisions import (
    Accept,
    Answer,
    CallResult,
    Conditions,
    End,
    InProgress,
    NotYet,
    RetryHold,
    Revert,
    RuleSettings,
    Start,
    Wait,
)
from tieline_connectors.command.rules.outcome import decide_after_crash, decide_outcome, points_to_revert
from tieline_connectors.command.rules.start import check_before_write, decide_start

SECOND = 1_000_000
"""In microseconds."""
T0 = 1_800_000_000 * SECOND
POINTS = ("site/ahu/p", "site/ahu/q")
BELIEVE = 20 * SECOND
RETENTION = Retention(30 * 86_400 * SECOND, 605 * SECOND)
TERMS = RuleSettings(max_age=600 * SECOND, max_clock_skew=5 * SECOND, built_at=T0 - 1)
POLICY = parse(
    """
version: 1
rules:
  - {issuers: [boss], points: [site/ahu/*], type: float, min: 0, max: 100}
""",
    "policy.yaml",
)


class FencedWorkerError(Exception):
    """Somebody else owns the partition: the broker refuses the transaction."""


class Disk:
    """What survives: the log of commands, and in one transaction entries, results and the offset."""

    def __init__(self):
        self.log = []
        self.entries = {}
        self.note = None
        self.results = []
        self.offset = 0
        self.epoch = 0

    def unit(self, epoch, result, entry=None, offset=None):
        if epoch != self.epoch:
            raise FencedWorkerError
        if entry is not None:
            self.entries[entry.command_id] = entry.to_value()
        if result is not None:
            self.results.append(result)
        if offset is not None:
            self.offset = offset

    def forget(self, epoch, gone, note):
        if epoch != self.epoch:
            raise FencedWorkerError
        for id_ in gone:
            del self.entries[id_]
        self.note = note.to_value()


class Device:
    """Counts what is really done to it."""

    def __init__(self, world):
        self.world = world
        self.values = dict.fromkeys(POINTS, 1.5)
        self.writes: Counter[tuple[str, str]] = Counter()
        self.late = []
        self.fates_of_calls = []
        self.expired_writes = []
        self.early_reverts = []
        self.behind = False

    def read(self, command):
        readable = self.world.fate() != "unreadable"
        return {w.point: reading_of(self.values[w.point]) if readable else None for w in command.writes}

    def end_hold(self, entry, point):
        if self.world.true < self.world.started[entry.command_id] + entry.command.hold_ms * 1000:
            self.early_reverts.append(entry.command_id)
        return self.call(entry.command, point, 1.5, reverts=True)

    def call(self, command, point, value, reverts):
        fate = self.fates_of_calls.pop(0) if self.fates_of_calls else self.world.fate()
        if fate in ("refused", "not_sent"):
            return CallResult("REFUSED" if fate == "refused" else "NOT_SENT", fate)
        if not reverts:
            if self.world.true >= command.expires_at and not self.behind:
                self.expired_writes.append(command.command_id)
            if fate != "lost":
                self.writes[command.command_id + (command.correlation_id or ""), point] += 1
        if fate == "late":
            self.late.append((point, value))
        elif fate != "lost":
            self.values[point] = value
        return (
            CallResult("NO_ANSWER", fate) if fate in ("late", "lost", "answer_lost") else CallResult("DONE")
        )


class World:
    """Time, the kill switch, and what goes wrong next."""

    def __init__(self):
        self.true = self.started_up = T0
        self.set_back = 0
        self.boot = 1
        self.started = {}
        self.killed = None
        self.fates = []

    def fate(self):
        return self.fates.pop() if self.fates else "done"

    def clocks(self):
        return self.true - self.set_back, self.true - self.started_up, f"boot {self.boot}"


class Worker:
    """One owner of the partition."""

    def __init__(self, world, disk, device):
        disk.epoch += 1
        self.world, self.disk, self.device = world, disk, device
        self.epoch = disk.epoch
        self.watch = ClockWatch(BELIEVE, TERMS.max_age + TERMS.max_clock_skew, TERMS.built_at)
        note = PartitionNote.from_value(disk.note)
        self.ledger = CommandLedger(map(LedgerEntry.from_value, disk.entries.values()), self.now(), note)
        clock = self.ledger.last_clock(self.now().boot)
        if clock is not None:
            self.watch.restore(clock)
        self.offset = disk.offset
        now = self.now()
        self.ledger.update_clock(now)
        self.deadlines = {e.command_id: monotonic_deadline(e, now) for e in self.ledger}
        self.update_clock()
        self.steps = self.live()
        self.idle = False

    def now(self):
        confirmed = self.world.boot > 1 and self.world.set_back == 0  # as NTP does, once it has set the clock
        return self.watch.read(*self.world.clocks())._replace(confirmed=confirmed)

    def conditions(self):
        now = self.now()
        self.device.behind = self.world.true - now.wall > CLOCK_STEP
        return Conditions(now, TERMS, POLICY, killed=self.world.killed)

    def step(self):
        """One step; false when it was fenced."""
        try:
            self.idle = next(self.steps) == "idle"
        except FencedWorkerError:
            return False
        return True

    def live(self):
        while True:
            self.update_clock()
            for entry in self.ledger.unfinished():
                if entry.state == "STARTED":
                    after = self.device.read(entry.command)
                    yield
                    end = decide_after_crash(entry, after, self.conditions().now.wall)
                    yield from self.store(end.entry, end.result)
                else:
                    after = self.device.read(entry.command)
                    yield
                    again = holds.decide_hold_after_crash(entry, after, self.ledger, self.conditions())
                    yield from self.give_back(again)
            for entry in self.ledger.due(self.conditions().now.wall):
                if entry.state == "RECEIVED":
                    yield from self.execute(entry)
                else:
                    yield from self.give_back(holds.decide_hold(entry, self.ledger, self.conditions()))
            if self.offset < len(self.disk.log):
                yield from self.handle(self.disk.log[self.offset])
            else:
                yield "idle"
            yield

    def update_clock(self):
        """As `CommandPartition.update_clock`; what is due to be forgotten is, by list of the machine."""
        now = self.now()
        self.ledger.update_clock(now)
        note = self.ledger.note_with_clock(now)
        if note != self.ledger.note:
            self.disk.forget(self.epoch, (), note)
            self.ledger.note = note

    def forget(self):
        now = self.now()
        if not now.doubt:
            gone = self.ledger.removable(now.wall, RETENTION)
            note = self.ledger.note_after_removal(gone)
            self.disk.forget(self.epoch, gone, note)
            self.ledger.note = note
            self.ledger.remove(gone, now.wall)

    def store(self, entry, result, offset=None):
        self.disk.unit(self.epoch, result, entry, offset)
        yield
        self.ledger.put(entry)
        yield

    def handle(self, record):
        command, record_time = record
        decision = decide_arrival(command, record_time, self.ledger, self.conditions())
        yield
        if isinstance(decision, Wait):
            return
        offset = self.offset + 1
        if isinstance(decision, InProgress):
            self.disk.unit(self.epoch, None, offset=offset)
        elif isinstance(decision, Answer):
            self.disk.unit(self.epoch, decision.result, offset=offset)
        else:
            assert isinstance(decision, (Accept, End))
            if isinstance(decision, Accept):
                self.deadlines[command.command_id] = decision.deadline
            yield from self.store(decision.entry, decision.result, offset)
        self.offset = offset

    def execute(self, entry):
        command, deadline = entry.command, self.deadlines[entry.command_id]
        before = self.device.read(command)
        yield
        decision = decide_start(entry, deadline, before, self.ledger, self.conditions())
        if isinstance(decision, (Wait, NotYet)):
            return
        if isinstance(decision, Start):
            self.world.started[entry.command_id] = self.world.true
        yield
        yield from self.store(decision.entry, decision.result)
        if isinstance(decision, End):
            return
        assert isinstance(decision, Start)
        refused = check_before_write(decision.entry, decision.deadline, before, self.conditions())
        if refused is not None:
            yield from self.store(refused.entry, refused.result)
            return
        # The last check and the call are one step: nothing happens between them.
        calls: dict[str, CallResult] = {}
        for write in command.writes:
            broken = any(call.answer != "DONE" for call in calls.values())
            calls[write.point] = (
                CallResult("NOT_SENT", "one before it failed")
                if broken
                else self.device.call(command, write.point, write.value, reverts=False)
            )
        yield
        given_back = {}
        for point in points_to_revert(decision.entry, calls):
            given_back[point] = self.device.call(command, point, 1.5, reverts=True)
            yield
        after = self.device.read(command)
        yield
        now = self.conditions().now.wall
        end = decide_outcome(decision.entry, calls, before, after, given_back, now)
        yield from self.store(end.entry, end.result)

    def give_back(self, decision):
        yield
        if isinstance(decision, (Wait, NotYet)):
            return
        if isinstance(decision, (End, RetryHold)):
            yield from self.store(decision.entry, decision.result)
            return
        assert isinstance(decision, Revert)
        entry = decision.entry
        if self.ledger.get(entry.command_id) != entry:
            yield from self.store(entry, None)
        if not holds.may_revert(decision, self.conditions()):
            return
        calls = {point: self.device.end_hold(entry, point) for point in decision.points}
        yield
        after = self.device.read(entry.command)
        yield
        end = holds.decide_hold_outcome(entry, calls, after, self.ledger, self.conditions().now.wall)
        if not isinstance(end, NotYet):
            yield from self.store(end.entry, end.result)


def command(
    command_id, value=30.0, *, issued=T0, ttl=3600, wait=None, hold=None, points=POINTS, dry_run=False
):
    """``value`` none: a REVERT. Times in seconds, ``issued`` in microseconds."""
    return from_value(
        {
            "command_id": command_id,
            "issuer": "boss",
            "issued_at": issued,
            "expires_at": issued + ttl * SECOND,
            "not_before": None if wait is None else issued + wait * SECOND,
            "action": "REVERT" if value is None else "SET",
            "writes": [{"point": point, "value": value} for point in points],
            "hold_ms": None if hold is None else hold * 1000,
            "dry_run": dry_run,
        },
        Defaults(),
    )


@pytest.fixture(scope="session")
def model():
    return SimpleNamespace(
        World=World,
        Disk=Disk,
        Device=Device,
        Worker=Worker,
        command=command,
        POINTS=POINTS,
        SECOND=SECOND,
        T0=T0,
    )
