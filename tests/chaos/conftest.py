"""A plant for the command sink: one device, a clock that the test moves, and several lives of the task.

The sink, its executor, its ledger and its audit log are the real ones. The test runs the executor's steps
itself (`Life.settle`), so that a crash comes exactly where the test wants it.
"""

import itertools
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tieline.api import ID_HEADER, RetriableError, SinkRecord, TopicPartition
from tieline.testing.changelogs import Changelogs
from tieline.testing.sink_context import RecordingSinkContext
from tieline_connectors.command import sink
from tieline_connectors.command.audit.file import AuditFile
from tieline_connectors.command.audit.verification import verify_file
from tieline_connectors.command.config import CommandSinkConfig
from tieline_connectors.command.execution.conditions import ConditionMonitor
from tieline_connectors.command.execution.entry_recorder import EntryRecorder
from tieline_connectors.command.execution.errors import DeviceRefusedError, UnavailableError, UncertainError
from tieline_connectors.command.execution.reservation import Reservation
from tieline_connectors.command.execution.scheduler import Scheduler
from tieline_connectors.command.model.command import TERMINAL
from tieline_connectors.command.rules.decisions import Now

SECOND = 1_000_000
T0 = 1_800_000_000 * SECOND
AT = TopicPartition("commands", 0)
POINTS = ("site/ahu/p", "site/ahu/q", *(f"site/ahu/{n}" for n in range(20)))
DEFAULT = 1.5
POLICY = """
version: 1
rules:
  - {issuers: boss, points: site/ahu/*, type: float, min: 0, max: 1000000}
"""


class Crash(BaseException):
    """The process is killed here."""


class Clock:
    """A clock that the test and slow calls move. ``set_back``: how far the wall clock is behind."""

    def __init__(self):
        self.true, self.set_back = T0, 0
        self.boot, self.booted_at = 1, T0

    def __call__(self):
        return Now(self.true - self.set_back, self.true - self.booted_at, boot=f"boot {self.boot}")

    def restart_computer(self):
        """The monotonic clock starts again, and nothing remembers what was believed but the ledger."""
        self.boot, self.booted_at = self.boot + 1, self.true

    def pass_(self, seconds):
        self.true += int(seconds * SECOND)


class Device:
    """A device that records every write with its time. ``fate`` decides the outcome of each call.

    ``done``, ``refused``, ``unavailable`` (nothing was sent), ``lost`` (no answer, not done), ``answer_lost``
    (no answer, done), ``late`` (no answer, done by `arrive`), ``unread`` (a get fails), ``crash`` and
    ``crash_after`` (the process dies before or after the call).
    """

    def __init__(self, clock):
        self.clock = clock
        self.values = dict.fromkeys(POINTS, DEFAULT)
        self.sets = []
        self.reverts = []
        self.calls = 0
        self.fate = lambda number, kind, value: "done"
        self._late = []

    def get(self, point):
        return self._call("get", point, lambda: self.values[point])

    def set(self, point, value):
        self._call("set", point, lambda: self.values.update({point: value}), (point, value))

    def revert(self, point):
        self._call("revert", point, lambda: self.values.update({point: DEFAULT}), None)

    def arrive(self):
        """Apply the late writes."""
        for effect in self._late:
            effect()
        self._late.clear()

    def _call(self, kind, point, effect, written=None):
        self.calls += 1
        sent_at = self.clock.true  # from now on the write cannot be recalled
        fate = self.fate(self.calls, kind, written and written[1])
        self.clock.true += 1000
        if fate == "crash":
            raise Crash
        if fate == "unavailable":
            raise UnavailableError("the platform does not answer")
        if fate == "refused" or (fate == "unread" and kind == "get"):
            raise DeviceRefusedError("no")
        if fate == "lost":
            self.clock.pass_(5)
            raise UncertainError("no answer")
        if kind == "set":
            self.sets.append((*written, sent_at))
        if kind == "revert":
            self.reverts.append((point, self.values[point]))
        if fate == "late" and kind != "get":
            self._late.append(effect)
            self.clock.pass_(5)
            raise UncertainError("no answer")
        answer = effect()
        if fate == "crash_after":
            raise Crash
        if fate == "answer_lost":
            self.clock.pass_(5)
            raise UncertainError("no answer")
        return answer


class PlantPlatform:
    """The platform as the executor sees it."""

    recently_found = False
    agent = "platform.driver"

    def __init__(self, plant):
        self._plant = plant
        self.get, self.set, self.revert = plant.device.get, plant.device.set, plant.device.revert

    def connect(self):
        if self._plant.is_unavailable:
            self._plant.clock.pass_(0.5)
            raise UnavailableError("the platform does not answer")

    def ping_agents(self, seconds=None):
        self.connect()

    def remember(self, agent):
        pass

    def reserve(self, devices, priority, writes):
        return Reservation(None, priority, 5.0)

    def close(self):
        pass


class Audit(AuditFile):
    """The real audit log, whose process dies or whose disk is full at the lines that the plant chooses."""

    def __init__(self, path, count, plant):
        super().__init__(path, count)
        self.plant = plant
        plant.audit_logs.append(self)

    def append(self, at, *events):
        self.plant.audits += 1
        fate = self.plant.audit_fate(self.plant.audits)
        if fate == "crash":
            raise Crash
        if fate == "full":
            raise OSError(28, "No space left on device")
        head = super().append(at, *events)
        if fate == "crash_after":
            raise Crash
        return head


class Plant:
    """Everything that survives a worker: the device, the topic, the changelogs, the files."""

    Crash = Crash
    AT = AT

    def __init__(self, folder: Path, settings: dict[str, str]):
        self.settings = settings
        self.clock = Clock()
        self.device = Device(self.clock)
        self.changelogs = Changelogs()
        self.folder = folder
        self.is_unavailable = False
        self.audits = 0
        self.audit_logs: list[Audit] = []
        self.audit_fate = lambda number: "done"
        self.log: list[SinkRecord] = []
        self.sent: dict[str, dict[str, Any]] = {}
        self.lives: list[Life] = []
        (folder / "policy.yaml").write_text(POLICY)

    def command(self, name, value=None, *, ttl=60.0, points=POINTS[:1], **more):
        """Return a command. Each test value belongs to one command. ``ttl``: seconds from now."""
        now = self.clock.true
        return {
            "command_id": name,
            "issuer": "boss",
            "issued_at": now,
            "expires_at": now + int(ttl * SECOND),
            "action": "SET",
            "writes": [{"point": point, "value": value} for point in points],
            **more,
        }

    def send(self, *values):
        """Append records to the topic."""
        for value in values:
            number = len(self.log)
            timestamp = self.clock.true // 1000
            headers = ((ID_HEADER, b"t-0-%d" % number),)
            self.log.append(SinkRecord(*AT, number, value, None, headers, timestamp))
            if isinstance(value, dict) and "writes" in value:
                self.sent.setdefault(value["command_id"], value)

    def config(self, audit):
        settings = {
            "volttron.address": "tcp://127.0.0.1:1",
            "platform.name": "lab",
            "policy.file": str(self.folder / "policy.yaml"),
            "audit.file": str(self.folder / audit),
            "kill.switch.file": str(self.folder / "kill"),
            **self.settings,
        }
        return CommandSinkConfig.parse(settings)

    def live(self, audit="audit.log"):
        """Start a worker. With another audit log it is on another machine; the former one may be alive."""
        for life in self.lives:
            if life.audit == audit:
                life.die()
        self.lives.append(Life(self, audit))
        return self.lives[-1]

    def sets_of(self, value):
        """Return the points to which a value was written."""
        return [point for point, written, _ in self.device.sets if written == value]

    def results(self, name=None):
        records = [record.value for record in self.changelogs.records if record.topic == "command-results"]
        return [result for result in records if name in (None, result["command_id"])]

    def ends(self):
        """Return the different terminal results of each command; a conflict belongs to another command."""
        ends: dict[str, dict[str, Any]] = {}
        for result in self.results():
            if result["state"] in TERMINAL and result["reason_code"] != "CONFLICT":
                ends.setdefault(result["command_id"], {})[repr(result)] = result
        return {name: list(results.values()) for name, results in ends.items()}

    def deadline(self, command):
        """Return the earlier one of the command's expiry and its greatest age."""
        max_age = int(self.settings.get("max.age.ms", "300000")) * 1000
        return min(command["expires_at"], command["issued_at"] + max_age)

    def check(self, records=None):
        """Check that nothing was written twice or late, and that every command has one true result."""
        assert self.changelogs.offsets[AT] == (len(self.log) if records is None else records)
        executions = Counter((point, value) for point, value, _ in self.device.sets)
        assert [what for what, times in executions.items() if times > 1] == []
        owner = {w["value"]: c for c in self.sent.values() for w in c["writes"] if c["action"] == "SET"}
        late = [w for w in self.device.sets if w[2] >= self.deadline(owner[w[1]])]
        assert late == []
        ends = self.ends()
        assert {name: len(results) for name, results in ends.items() if len(results) != 1} == {}
        assert self.sent.keys() <= ends.keys()
        for name, command in self.sent.items():
            (end,) = ends[name]
            if command["action"] == "SET":
                done = [executions[w["point"], w["value"]] for w in command["writes"]]
                outcomes = [w["outcome"] for w in end["writes"]]
                assert end["state"] != "SUCCEEDED" or end["dry_run"] or all(done), (command, end)
                denied = [w for w, times in zip(outcomes, done, strict=False) if times and w == "NOT_WRITTEN"]
                assert denied == [], end
        for entry in self.changelogs.entries(AT).values():
            assert entry["state"] == "ENDED", entry
            assert entry["hold"] in ("NONE", "ENDED", "SKIPPED"), entry
        for audit in {life.audit for life in self.lives}:
            assert verify_file(self.folder / audit) is None


class Life:
    """One worker: it reads the topic and runs the executor's steps."""

    def __init__(self, plant, audit):
        self.plant, self.audit = plant, audit
        self.context = RecordingSinkContext(changelogs=plant.changelogs)
        self.task: Any = sink.CommandSinkTask(self.context, plant.config(audit))
        self.task.start()
        self._audit_log = plant.audit_logs[-1]
        try:
            self.task.open([AT])
        except BaseException:
            self.die()
            raise
        self.offset = plant.changelogs.offsets.get(AT, 0)

    def take(self, most=1):
        """Offer the next records, as the runtime does. Return False if the sink wants them again later."""
        batch = self.plant.log[self.offset : self.offset + most]
        readable = list(itertools.takewhile(lambda record: not isinstance(record.value, bytes), batch))
        try:
            if readable:
                self.task.put(readable)
            else:
                assert self.task.handle_undecodable(batch[0], ValueError("no schema has the id 7"))
        except RetriableError:
            return False
        self.offset += len(readable) or 1
        return True

    def settle(self, most=10_000):
        """Run steps until nothing is due."""
        for _ in range(most):
            if self.task.scheduler.step() > 0:
                return
        raise AssertionError("the executor never comes to rest")

    def work(self):
        """Handle all records of the topic, one at a time, then everything that is due."""
        while self.offset < len(self.plant.log):
            if not self.take():
                self.plant.clock.pass_(1)
            self.settle()
        self.settle()

    def finish(self, seconds=200):
        """Work until every command and every hold has ended."""
        for _ in range(seconds):
            self.work()
            if all(
                e["state"] == "ENDED" and e["hold"] not in ("HELD", "REVERTING")
                for e in self.plant.changelogs.entries(AT).values()
            ):
                return
            self.plant.clock.pass_(1)
        raise AssertionError("commands never end")

    def die(self):
        """Close the files, as the system does for a dead process."""
        self._audit_log.close()


@pytest.fixture
def new_plant(tmp_path, monkeypatch):
    """Return a function that creates a plant; a test may use several, one after the other."""
    plants: list[Plant] = []

    def new_plant(**settings):
        folder = tmp_path / f"plant{len(plants)}"
        folder.mkdir()
        by_key = {name.replace("_", "."): value for name, value in settings.items()}
        plants.append(Plant(folder, by_key))
        return plants[-1]

    monkeypatch.setattr(Scheduler, "start", lambda self: None)
    monkeypatch.setattr(EntryRecorder, "retry_after", 0.0001)
    monkeypatch.setattr(os, "fsync", lambda file: None)  # processes die here, and no power fails
    monkeypatch.setattr(
        sink, "ConditionMonitor", lambda config, count: ConditionMonitor(config, count, plants[-1].clock)
    )
    monkeypatch.setattr(sink, "Platform", lambda *_: PlantPlatform(plants[-1]))
    monkeypatch.setattr(sink, "AuditFile", lambda path, count: Audit(path, count, plants[-1]))
    yield new_plant
    for plant in plants:
        for life in plant.lives:
            life.die()
