"""Commits with records and notes on the local log: kill -9, and files of versions without notes."""

import signal
import sqlite3
import subprocess
import sys

import pytest

from tieline.api import TopicPartition
from tieline.broker.local.log import LocalLog
from tieline.broker.local.store import Store
from tieline.broker.records import Committed, ProducerRecord

AT = TopicPartition("t", 0)

KILLED = """
import sys, pathlib
from tieline.api import TopicPartition
from tieline.broker.local.store import Store
from tieline.broker.records import ProducerRecord
store = Store(pathlib.Path(sys.argv[1]))
store.create_topic("t", 1)
at = TopicPartition("t", 0)
for number in range(1, 1_000_000):
    letters = [ProducerRecord("dead", b"%d" % number)] * 3
    store.commit("g", {at: number}, 30, {}, letters, {at: str(number)})
    print(number, flush=True)
"""


@pytest.mark.parametrize("kill_after", [1, 20, 90])
def test_kill_9_never_separates_the_records_the_offset_and_the_note_of_a_commit(tmp_path, kill_after):
    path = tmp_path / "log.db"
    command = [sys.executable, "-c", KILLED, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout
        for _ in range(kill_after):
            writer.stdout.readline()
        writer.send_signal(signal.SIGKILL)
    with Store(path) as store:
        stored = store.noted("g")[AT]
        letters = [int(record.value or b"") for record in store.read_from("dead", 0, 0, 10_000)]
    assert stored.offset >= kill_after
    assert stored.note == str(stored.offset)
    assert letters == [number for number in range(1, stored.offset + 1) for _ in range(3)]


@pytest.fixture
def old_file(tmp_path):
    """A file as versions without notes have left it: offset 3 is committed."""
    with Store(tmp_path / "log.db") as store:
        store.append([ProducerRecord("t", b"%d" % number) for number in range(5)])
        store.commit("g", {AT: 3})
        store.save_source_offsets("c", {"p": "3"})
    with sqlite3.connect(tmp_path / "log.db") as connection:
        for table in ("offset_note", "source_note"):
            connection.execute(f"DROP TABLE {table}")
    connection.close()
    return tmp_path


def test_a_file_of_an_older_version_opens_and_its_next_commit_can_have_a_note(old_file):
    log = LocalLog.open(old_file)
    consumer = log.consumer("g", "", {})
    assert consumer.committed([AT], 1) == {AT: Committed(3)}
    consumer.commit({AT: 4}, 5, (), {AT: "note"})
    assert consumer.committed([AT], 1) == {AT: Committed(4, "note")}
    log.close()


def test_offsets_of_a_file_of_an_older_version_can_be_removed(old_file):
    log = LocalLog.open(old_file)
    log.offsets.remove("g", 5)
    assert log.offsets.group("g", 5).committed == {}
    log.close()


def test_a_note_is_ignored_once_an_older_version_has_moved_the_offset(old_file):
    with Store(old_file / "log.db") as store:
        store.commit("g", {AT: 4}, notes={AT: "note"})
    with sqlite3.connect(old_file / "log.db") as connection:  # as that version writes it
        connection.execute("INSERT OR REPLACE INTO group_offset SELECT name, partition, 5 FROM group_offset")
    connection.close()
    with Store(old_file / "log.db") as store:
        assert store.noted("g") == {AT: Committed(5)}


def test_the_source_offsets_of_an_older_version_can_have_notes(old_file):
    with Store(old_file / "log.db") as store:
        assert (store.source_offsets("c"), store.source_notes("c")) == ({"p": "3"}, {})
        store.save_source_offsets("c", {"p": "4"}, notes={"p": "note"})
        assert store.source_notes("c") == {"p": "note"}
    with sqlite3.connect(old_file / "log.db") as connection:  # as that version writes it
        connection.execute("INSERT OR REPLACE INTO source_offset VALUES ('c', 'p', '5')")
    connection.close()
    with Store(old_file / "log.db") as store:
        assert (store.source_offsets("c"), store.source_notes("c")) == ({"p": "5"}, {})


def test_the_note_goes_with_the_topic(tmp_path):
    with Store(tmp_path / "log.db") as store:
        store.append([ProducerRecord("t", b"1")])
        store.commit("g", {AT: 1}, notes={AT: "note"})
        store.delete_topic("t")
        store.append([ProducerRecord("t", b"1")])
        assert store.noted("g") == {}
    with sqlite3.connect(tmp_path / "log.db") as connection:
        assert connection.execute("SELECT count(*) FROM offset_note").fetchone() == (0,)
    connection.close()
