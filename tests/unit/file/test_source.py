from __future__ import annotations

import os
from pathlib import Path

import pytest

from tieline.api import ID_HEADER, RetriableError, header
from tieline.testing.source_context import RecordingSourceContext
from tieline_connectors.file.source import FileSourceConfig, FileSourceTask


class Reader:
    """A file and a task that reads it; ``restarted`` is another task, which resumes at the saved offset."""

    def __init__(self, path: Path, **settings):
        self.path = path
        self.context = RecordingSourceContext()
        self.settings = settings
        self.task = self.started()

    def started(self):
        settings = {"file": str(self.path), "topic": "t", **self.settings}
        task = FileSourceTask(self.context, FileSourceConfig.parse(settings))
        task.start()
        return task

    def restart(self):
        self.task.stop()
        self.task = self.started()

    def append(self, text):
        with open(self.path, "ab") as file:
            file.write(text.encode() if isinstance(text, str) else text)

    def poll(self, most=100):
        """The records that are there, their offsets saved."""
        records = list(self.task.poll(most, 0))
        self.context.save(records)
        return records

    def lines(self, most=100):
        return [record.value for record in self.poll(most)]


@pytest.fixture
def reader(tmp_path):
    reader = Reader(tmp_path / "in.txt")
    yield reader
    reader.task.stop()


def test_lines_that_are_appended_later_are_read_later(reader):
    reader.append("a\nb\n")
    assert reader.lines() == ["a", "b"]
    assert reader.lines() == []
    reader.append("c\n")
    assert reader.lines() == ["c"]


def test_the_file_may_appear_later(reader):
    assert reader.lines() == []
    reader.append("a\n")
    assert reader.lines() == ["a"]


def test_a_line_that_is_not_complete_waits_for_its_end(reader):
    reader.append("a\nhal")
    assert reader.lines() == ["a"]
    assert reader.lines() == []
    reader.append("f\n")
    assert reader.lines() == ["half"]


def test_line_ends_of_both_kinds_are_removed_once(reader):
    reader.append(b"a\r\nb\n\n\r\r\nc\r\n")
    assert reader.lines() == ["a", "b", "", "\r", "c"]


def test_invalid_utf_8_is_replaced_and_affects_no_other_line(reader):
    reader.append(b"a\n\xff\xfe\nb\n")
    assert reader.lines() == ["a", "��", "b"]


def test_reading_resumes_at_the_saved_offset_after_a_restart(reader):
    reader.append("a\nb\nc\n")
    assert reader.lines(2) == ["a", "b"]
    reader.restart()
    assert reader.lines() == ["c"]


def test_a_record_has_the_same_identity_each_time_it_is_read(tmp_path):
    path = tmp_path / "in.txt"
    path.write_text("a\nb\na\n", "utf-8")
    one, other = Reader(path), Reader(path)
    first, again = one.poll(), other.poll(2) + other.poll()
    assert [record.headers for record in first] == [record.headers for record in again]
    assert len({header(record, ID_HEADER) for record in first}) == 3
    for reader in (one, other):
        reader.task.stop()


def test_a_renamed_file_is_read_to_its_end_and_its_successor_from_the_start(reader):
    reader.append("a\nb\n")
    assert reader.lines(1) == ["a"]
    os.rename(reader.path, reader.path.with_suffix(".1"))
    assert reader.lines(1) == ["b"]
    reader.append("c\n")
    with open(reader.path.with_suffix(".1"), "a", encoding="utf-8") as old:
        old.write("late\nno end")
    assert reader.lines() == ["late", "no end"]
    assert reader.lines() == ["c"]


def test_a_file_renamed_between_two_runs_is_abandoned_and_its_successor_is_read(reader):
    reader.append("a\nb\n")
    assert reader.lines() == ["a", "b"]
    reader.task.stop()
    os.rename(reader.path, reader.path.with_suffix(".1"))
    reader.append("c\nd\ne\n")
    reader.restart()
    assert reader.lines() == ["c", "d", "e"]


@pytest.mark.parametrize("restart", [False, True])
def test_a_truncated_file_is_read_from_its_start(restart, reader):
    reader.append("a\nb\n")
    assert reader.lines() == ["a", "b"]
    reader.path.write_text("c\n", "utf-8")
    if restart:
        reader.restart()
    assert reader.lines() == ["c"]


def test_a_new_file_with_the_inode_of_the_old_one_is_read_from_its_start(reader):
    reader.append("old1\nold2\n")
    assert len(reader.poll()) == 2
    reader.task.stop()
    before = os.stat(reader.path).st_ino
    reader.path.write_text("new1\nnew2\nnew3\n", "utf-8")  # as long, and longer
    assert os.stat(reader.path).st_ino == before
    reader.restart()
    assert [record.value for record in reader.poll()] == ["new1", "new2", "new3"]


def test_a_long_line_is_not_split_inside_a_character_or_at_a_false_line_end(tmp_path):
    reader = Reader(tmp_path / "in.txt", **{"max.line.bytes": "5"})
    reader.append("ab\u00fc\u00fc\u00fc\u00fc\nabcd\refgh\n")
    assert [record.value for record in reader.poll()] == [
        "ab\u00fc",
        "\u00fc\u00fc",
        "\u00fc",
        "abcd\r",
        "efgh",
    ]
    reader.task.stop()


def test_a_line_at_the_position_of_another_has_its_own_id(reader):
    """A store compares the contents of one id; it would refuse the new line as a false copy."""
    reader.append("a\n")
    (first,) = reader.poll()
    reader.path.write_text("", "utf-8")
    assert reader.poll() == []
    reader.append("b\n")
    (second,) = reader.poll()
    assert header(first, ID_HEADER) != header(second, ID_HEADER)
    reader.restart()
    assert reader.lines() == []


@pytest.mark.parametrize("length", [9, 10, 11, 20, 25])
def test_a_long_line_is_split_without_losing_or_adding_a_byte(length, tmp_path):
    reader = Reader(tmp_path / "in.txt", **{"max.line.bytes": "10"})
    text = "".join(chr(97 + n % 26) for n in range(length))
    reader.append(f"{text}\nnext\n")
    *parts, last = reader.lines()
    assert "".join(parts) == text
    assert last == "next"
    assert len(parts) == -(-length // 10)
    reader.task.stop()


def test_a_batch_is_no_larger_than_its_setting(tmp_path):
    reader = Reader(tmp_path / "in.txt", **{"batch.size": "2"})
    reader.append("a\nb\nc\n")
    assert [reader.lines(), reader.lines()] == [["a", "b"], ["c"]]
    reader.task.stop()


def test_a_path_that_cannot_be_opened_is_an_outage(tmp_path):
    (tmp_path / "file").write_text("", "utf-8")
    reader = Reader(tmp_path / "file" / "in.txt")
    with pytest.raises(RetriableError, match=r"in\.txt cannot be read: Not a directory"):
        reader.poll()
    reader.task.stop()
