"""A policy that is half-written is never believed: by a clock of the test's own, and on real files."""

import os
import threading

import pytest

from tieline.api import ConfigError
from tieline_connectors.command.config import CommandSinkConfig
from tieline_connectors.command.execution.conditions import ConditionMonitor
from tieline_connectors.command.model.facts import PolicyContext
from tieline_connectors.command.policy.changes import SETTLES, EffectivePolicy, PolicyChanges
from tieline_connectors.command.rules.decisions import Now
from tieline_connectors.command.watched_file import Content

SECOND = 1_000_000
OLD = """version: 1
rules:
  - {issuers: x, points: a/**, type: float, min: 0, max: 10}
"""
NEW = """version: 1
rules:
  - issuers: x
    points: a/**
    type: float
    min: 0
    max: 90
    dwell_minutes: 60
    hold_required: true
    max_hold_minutes: 10
    reason_required: true
    key: operators
"""
SIGNED = frozenset({"operators"})


def allows(in_force, given, value, signed=frozenset(), **fields):
    command = given.command(issuer="x", writes=[{"point": "a/b", "value": value}], **fields)
    return in_force.rejection(command, PolicyContext(given.T0, signed_with=signed)) is None


def good(in_force, given):
    """What only the whole new policy allows."""
    return allows(in_force, given, 50.0, SIGNED, hold_ms=1000, reason="r")


class File:
    """A file as looks would find it."""

    def __init__(self, text):
        self.inode = self.changes = 1
        self.text = text
        self.writes: bool | None = False
        self.moved = False

    def write(self, text):
        self.text, self.changes = text, self.changes + 1

    def replace(self, text):
        self.inode += 1
        self.write(text)

    def content(self):
        return Content((1, self.inode), (self.inode, self.changes), self.text, self.writes, self.moved)


@pytest.fixture
def file():
    return File(OLD)


@pytest.fixture
def changes(file):
    return PolicyChanges("p.yaml", file.content())


def test_no_partly_written_policy_permits_what_the_last_good_one_forbids(given):
    for length in range(len(NEW)):
        file = File(OLD)
        changes = PolicyChanges("p.yaml", file.content())
        file.write(NEW[:length])
        changes.update(file.content(), 0)
        changes.update(file.content(), SETTLES - 1)
        assert not allows(changes.in_force, given, 50.0), "an unsigned command beyond the old limit"
        assert not good(changes.in_force, given)
        file.write(NEW)
        changes.update(file.content(), 2 * SETTLES)
        assert not allows(changes.in_force, given, 5.0), "what the whole new one refuses is refused at once"
        event = changes.update(file.content(), 3 * SETTLES)
        assert event is not None
        assert event.kind == "changed"
        assert good(changes.in_force, given)


def test_a_policy_that_was_moved_into_place_applies_at_once(given, file, changes):
    file.replace(NEW)
    assert changes.update(file.content(), 0).kind == "changed"
    assert good(changes.in_force, given)
    assert changes.known == file.content().stamp


@pytest.mark.parametrize("length", [40, len(NEW)])
def test_a_new_policy_file_that_a_process_still_writes_does_not_apply(given, file, changes, length):
    file.replace(NEW[:length])
    file.writes = True
    for time in range(0, 5 * SETTLES, SETTLES):
        changes.update(file.content(), time)
        assert not good(changes.in_force, given)
    file.text, file.writes = NEW, False
    file.changes += 1
    changes.update(file.content(), 6 * SETTLES)
    assert not good(changes.in_force, given)
    changes.update(file.content(), 7 * SETTLES)
    assert good(changes.in_force, given)


@pytest.mark.parametrize("moved", [True, False])
def test_without_a_list_of_writers_the_times_of_the_file_show_whether_it_was_moved(
    given, file, changes, moved
):
    file.replace(NEW)
    file.writes, file.moved = None, moved
    changes.update(file.content(), 0)
    assert good(changes.in_force, given) is moved


def test_after_a_policy_vanishes_the_last_good_one_applies_and_its_successor_has_to_settle(
    given, file, changes
):
    assert changes.unreadable("No such file").kind == "wrong"
    assert changes.unreadable("No such file") is None, "reported once"
    assert allows(changes.in_force, given, 5.0)
    file.replace(NEW)
    changes.update(file.content(), 0)
    assert not good(changes.in_force, given)
    changes.update(file.content(), SETTLES)
    assert good(changes.in_force, given)


@pytest.mark.parametrize("text", ["", "\n", "version: 1\nrules: [", "version: 1\nrules:\n  - {issuers: x"])
@pytest.mark.parametrize("moved", [True, False])
def test_an_empty_or_truncated_policy_is_reported_once_and_never_applies(given, file, changes, text, moved):
    file.replace(text) if moved else file.write(text)
    reported = [changes.update(file.content(), time) for time in (0, SETTLES, 2 * SETTLES)]
    assert [event.kind for event in reported if event] == (["wrong"] if moved else ["pending", "wrong"])
    assert changes.in_force == EffectivePolicy(changes.in_force.good)
    assert allows(changes.in_force, given, 5.0)


def test_a_policy_that_returns_to_its_former_text_changes_nothing(given, file, changes):
    file.write(NEW)
    changes.update(file.content(), 0)
    file.write(OLD)
    changes.update(file.content(), 1)
    changes.update(file.content(), 1 + SETTLES)
    assert allows(changes.in_force, given, 5.0)
    assert changes.in_force.pending is None


class Files:
    def __init__(self, folder):
        self.path = folder / "policy.yaml"
        self.path.write_text(OLD)
        self.at = 0
        self.counted: dict[str, int] = {}

    def monitor(self):
        config = CommandSinkConfig.parse(
            {
                "volttron.address": "tcp://127.0.0.1:1",
                "platform.name": "lab",
                "policy.file": str(self.path),
                "audit.file": str(self.path.with_name("audit.log")),
            }
        )
        return ConditionMonitor(config, self._count, lambda: Now(0, self.at))

    def _count(self, name, number):
        self.counted[name] = self.counted.get(name, 0) + number

    def replace(self, text):
        new = self.path.with_name("new")
        new.write_text(text)
        new.replace(self.path)


@pytest.fixture
def files(tmp_path):
    return Files(tmp_path)


def test_a_real_file_applies_at_once_if_moved_into_place_and_otherwise_once_it_has_settled(given, files):
    around = files.monitor()
    files.replace(NEW)
    assert good(around.current().policy, given)
    files.path.write_text(OLD)
    assert not allows(around.current().policy, given, 5.0)
    files.at = SETTLES
    assert allows(around.current().policy, given, 5.0)
    assert files.counted == {"policy.changed": 2, "policy.pending": 1}


def test_a_real_file_that_was_recreated_and_is_still_open_does_not_apply(given, files):
    around = files.monitor()
    files.path.unlink()
    with files.path.open("w") as half:
        half.write(NEW.partition("    dwell")[0])
        half.flush()
        for files.at in (0, SETTLES, 2 * SETTLES):
            assert not allows(around.current().policy, given, 50.0)
        half.write("    dwell" + NEW.partition("    dwell")[2])
    files.at = 4 * SETTLES
    assert not allows(around.current().policy, given, 50.0)
    files.at = 5 * SETTLES
    assert good(around.current().policy, given)
    assert files.counted == {"policy.pending": 1, "policy.changed": 1}


def test_a_pipe_or_a_folder_in_place_of_the_policy_leaves_the_last_good_one(given, files):
    around = files.monitor()
    files.path.unlink()
    os.mkfifo(files.path)
    assert allows(around.current().policy, given, 5.0)
    files.path.unlink()
    files.path.mkdir()
    assert allows(around.current().policy, given, 5.0)
    assert files.counted == {"policy.wrong": 2}


def test_a_start_waits_for_the_end_of_a_policy_that_is_being_written(given, files):
    half = files.path.open("w")
    half.write("version: 1\n")
    half.flush()
    timer = threading.Timer(0.2, lambda: (half.write(OLD.partition("\n")[2]), half.close()))
    timer.start()
    assert allows(files.monitor().current().policy, given, 5.0)
    timer.join()


@pytest.mark.parametrize("kind", ["FIFO", "folder"])
def test_a_start_with_a_policy_that_is_not_a_file_is_rejected_at_once(files, kind):
    files.path.unlink()
    os.mkfifo(files.path) if kind == "FIFO" else files.path.mkdir()
    with pytest.raises(ConfigError, match=f"it is a {kind}"):
        files.monitor()
