"""The local changelog's two files: a crash between any two of its steps, time-outs, and what stays small."""

import shutil
import threading
from typing import Any

import pytest

from tieline.api import DataDirInUseError, FencedError, RetriableError, TopicPartition
from tieline.broker.local.log import LocalLog
from tieline.broker.records import ProducerRecord
from tieline.testing.crash.points import Crash

AT = TopicPartition("t", 0)
SOON = 10.0


class SilentListener:
    def assigned(self, partitions):
        pass

    revoked = lost = assigned


class Life:
    """The owner of the only partition; ``left(folder)`` is what a kill would leave."""

    def __init__(self, folder):
        self.folder = folder
        self.log = LocalLog.open(folder)
        self.log.create_topic("t")
        self.consumer = self.log.consumer("group", "test", {})
        self.consumer.subscribe(["t"], None, SilentListener())
        self.consumer.poll(1, 0)
        self.changelog = self.consumer.changelog("c", AT, SOON)

    def write(self, number, timeout=SOON):
        record = ProducerRecord("results", b"%d" % number)
        self.changelog.write({b"n": b"%d" % number}, [record], number, timeout)

    def contents(self):
        """Entry, results and offset; the changelog is taken over once more for it."""
        values = []
        self.log.read("results", lambda record: values.append(int(record.value or b"")))
        self.changelog = self.consumer.changelog("c", AT, SOON)
        return self.changelog.entries.get(b"n"), values, self.log.store.committed("group").get(AT)

    def leave_copy(self, folder):
        shutil.copytree(self.folder, folder, ignore=shutil.ignore_patterns("*.lock", "*.bell", "*.reserve"))
        return folder

    def close(self):
        self.consumer.close(SOON)
        self.log.close()


@pytest.fixture
def lives(tmp_path):
    lives = []

    def begin(folder="first"):
        lives.append(Life(tmp_path / folder))
        return lives[-1]

    yield begin
    for life in lives:
        life.close()


def dying(submit, when):
    """The next change is the last that happens, or does not happen any more."""

    def submitted(change):
        if when == "after":
            submit(change).result(SOON)
        raise Crash("here")

    return submitted


@pytest.mark.parametrize(
    ("file", "when", "expected"),
    [
        ("ledger", "before", 1),
        ("ledger", "after", 2),  # the outbox says what the log still has to be given
        ("main", "before", 2),
        ("main", "after", 2),  # the log's mark says that it has it
    ],
)
def test_a_crash_between_two_steps_leaves_all_of_a_write_or_nothing_and_results_once(
    lives, tmp_path, file, when, expected
):
    life = lives()
    life.write(1)
    store = life.log.changelogs().store if file == "ledger" else life.log.store
    submit = store.submit
    store.submit = dying(submit, when)
    with pytest.raises(Crash):
        life.write(2)
    store.submit = submit
    life.leave_copy(tmp_path / "second")
    second = lives("second")
    assert second.contents() == (b"%d" % expected, list(range(1, expected + 1)), expected)
    second.write(3)
    second.leave_copy(tmp_path / "third")
    assert lives("third").contents() == (b"3", [*range(1, expected + 1), 3], 3)


@pytest.mark.parametrize("file", ["ledger", "main"])
def test_a_write_without_an_answer_in_time_is_done_once_when_it_is_repeated(lives, file):
    life = lives()
    store = life.log.changelogs().store if file == "ledger" else life.log.store
    go_on = threading.Event()
    store.submit(lambda tables: go_on.wait(SOON))  # a slow disk
    for _ in range(2):
        with pytest.raises(RetriableError):
            life.write(1, 0.05)
    go_on.set()
    life.write(1)
    assert life.contents() == (b"1", [1], 1)


def test_a_write_after_one_without_an_answer_is_applied_after_it(lives):
    life = lives()
    go_on = threading.Event()
    life.log.store.submit(lambda tables: go_on.wait(SOON))
    with pytest.raises(RetriableError):
        life.write(1, 0.05)
    go_on.set()
    life.write(2)
    assert life.contents() == (b"2", [1, 2], 2)


def test_a_full_disk_under_the_log_is_waited_out_and_the_result_comes_once(lives):
    life = lives()
    submit, failures = life.log.store.submit, [2]

    def full(change):
        if failures[0]:
            failures[0] -= 1

            def refused(tables):
                raise RetriableError("the disk is full")

            return submit(refused)
        return submit(change)

    life.log.store.submit = full
    for _ in range(2):
        with pytest.raises(RetriableError):
            life.write(1)
    life.write(1)
    assert life.contents() == (b"1", [1], 1)


def test_a_write_interrupted_by_a_takeover_is_not_delivered_twice_and_resets_nothing(lives):
    life = lives()
    submit = life.log.store.submit
    late: list[Any] = []
    life.log.store.submit = lambda change: submit(lambda tables: late.append(change))  # not now
    life.write(1)
    life.log.store.submit = submit
    old, life.changelog = life.changelog, life.consumer.changelog("c", AT, SOON)
    life.write(2)
    submit(late[0]).result(SOON)
    assert life.contents() == (b"2", [1, 2], 2)
    with pytest.raises(FencedError):
        old.write({b"n": b"zombie"}, [], None, SOON)


def test_pending_records_of_a_deleted_topic_move_no_offset_of_its_successor(lives, tmp_path):
    life = lives()
    submit = life.log.store.submit
    life.log.store.submit = dying(submit, "before")
    with pytest.raises(Crash):
        life.write(1)
    life.log.store.submit = submit
    life.log.delete_topic("t")
    life.leave_copy(tmp_path / "second")
    second = lives("second")
    assert second.contents() == (b"1", [1], None)


def test_pending_records_of_a_deleted_log_are_not_written_to_the_next_one(lives, tmp_path):
    life = lives()
    for number in (1, 2, 3):
        life.write(number)
    leftover = life.leave_copy(tmp_path / "left")
    for file in leftover.glob("log.db*"):
        file.unlink()
    again = lives("left")
    assert again.contents() == (b"3", [], None)
    again.write(1)
    assert again.contents() == (b"1", [1], 1)


def test_a_write_may_have_more_for_the_log_than_a_record_may_be_large(lives, tmp_path):
    life = lives()
    records = [ProducerRecord("results", b"x" * 1_000_000) for _ in range(20)]
    life.changelog.write({b"n": b"1"}, records, 1, SOON)
    sizes = []
    life.log.read("results", lambda record: sizes.append(len(record.value or b"")))
    assert sizes == [1_000_000] * 20
    again = lives(life.leave_copy(tmp_path / "left").name)
    assert again.changelog.entries == {b"n": b"1"}


def test_a_file_keeps_the_latest_of_each_key_and_one_outbox(lives):
    life = lives()
    for number in range(1, 201):
        life.write(number)
    ledger = life.log.changelogs().store
    assert ledger.size("c")[0] == 1
    assert ledger.size("c-outbox")[0] == 1
    assert life.contents() == (b"200", list(range(1, 201)), 200)


def test_another_process_cannot_have_the_file(lives, tmp_path):
    life = lives()
    guest = LocalLog.open(tmp_path / "first", owner=False)
    try:
        with pytest.raises(DataDirInUseError):
            guest.changelogs()
    finally:
        guest.close()
    life.write(1)


def test_entries_without_records_do_not_wait_for_the_log(lives):
    life = lives()
    go_on = threading.Event()
    life.log.store.submit(lambda tables: go_on.wait(SOON))  # telemetry is being written
    life.changelog.write({b"n": b"1"}, [], None, 5.0)
    go_on.set()
    assert life.contents() == (b"1", [], None)
