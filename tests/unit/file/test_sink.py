from __future__ import annotations

import os
import threading

import pytest

from tieline.api import RetriableError, SinkRecord
from tieline.testing.sink_context import RecordingSinkContext
from tieline_connectors.file import sink
from tieline_connectors.file.sink import FileSinkConfig, FileSinkTask


def started(path):
    task = FileSinkTask(RecordingSinkContext(), FileSinkConfig.parse({"file": str(path)}))
    task.start()
    return task


def put(task, *values):
    task.put([SinkRecord("t", 0, offset, value) for offset, value in enumerate(values)])


def test_lines_are_appended_to_an_existing_file(tmp_path):
    path = tmp_path / "out.txt"
    path.write_text("before\n", "utf-8")
    task = started(path)
    put(task, "a", "b")
    task.flush({})
    assert path.read_text("utf-8") == "before\na\nb\n"
    task.stop()


def test_flush_waits_for_the_disk(tmp_path, monkeypatch):
    """Lines that only the page cache has are lost when the power fails."""
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    task = started(tmp_path / "out.txt")
    put(task, "a")
    assert synced == []
    task.flush({})
    assert len(synced) == 1
    task.stop()


def test_values_other_than_text_are_written_as_json(tmp_path):
    task = started(tmp_path / "out.txt")
    put(task, None, True, 2**70, 0.5, {"a": [1, "é"]}, float("nan"), "\ud800")
    task.flush({})
    assert (tmp_path / "out.txt").read_text("utf-8").splitlines() == [
        *("null", "true", "1180591620717411303424", "0.5", '{"a": [1, "\\u00e9"]}', "NaN", "\\ud800")
    ]
    task.stop()


@pytest.mark.parametrize(
    ("before", "kept"), [("whole\nto", "whole\n"), ("to", ""), ("x" * 100_000, ""), ("a\n", "a\n")]
)
def test_a_line_that_a_crash_has_torn_is_removed(before, kept, tmp_path):
    path = tmp_path / "out.txt"
    path.write_text(before, "utf-8")
    task = started(path)
    put(task, "torn")
    task.flush({})
    assert path.read_text("utf-8") == f"{kept}torn\n"
    task.stop()


def test_a_missing_folder_is_an_outage(tmp_path):
    with pytest.raises(RetriableError, match=r"out\.txt cannot be written: No such file or directory"):
        started(tmp_path / "no" / "out.txt")


def test_a_full_disk_is_an_outage():
    task = started("/dev/full")
    with pytest.raises(RetriableError, match="/dev/full cannot be written: No space left on device"):
        put(task, "a")
    task.stop()


class Filling:
    """A file on a disk with room for so many bytes."""

    def __init__(self, file, room):
        self.file, self.room, self.name = file, room, file.name

    def write(self, data):
        if not self.room:
            raise OSError(28, "No space left on device")
        written = self.file.write(bytes(data)[: self.room])
        self.room -= written
        return written

    def fileno(self):
        return self.file.fileno()

    def close(self):
        self.file.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


@pytest.mark.parametrize("room", range(1, 9))
def test_a_line_torn_by_a_full_disk_is_completed_before_the_batch_is_repeated(room, tmp_path, monkeypatch):
    path = tmp_path / "out.txt"
    disk = Filling(path.open("ab", buffering=0), room)
    monkeypatch.setattr(sink, "open", lambda *args, **kwargs: disk, raising=False)
    monkeypatch.setattr(sink, "_cut_torn_line", lambda path: None)
    task = started(path)
    batch = ("abc", "def", "g")
    with pytest.raises(RetriableError, match="No space left"):
        put(task, *batch)
    with pytest.raises(RetriableError, match="No space left"):
        put(task, *batch)
    disk.room = 1_000
    put(task, *batch)
    lines = path.read_text("utf-8").splitlines()
    assert lines[-3:] == ["abc", "def", "g"]
    assert set(lines) == set(batch)
    task.stop()


def test_a_task_that_starts_removes_no_line_that_another_is_writing(tmp_path):
    path = tmp_path / "out.txt"
    writer, over = started(path), threading.Event()

    def start_others():
        while not over.is_set():
            started(path).stop()

    others = threading.Thread(target=start_others)
    others.start()
    try:
        for _ in range(40):
            put(writer, *["a" * 200] * 2000)
    finally:
        over.set()
        others.join()
    writer.stop()
    assert len(path.read_text("utf-8").splitlines()) == 80_000


def test_two_tasks_may_append_to_one_file(tmp_path):
    path = tmp_path / "out.txt"
    first = started(path)
    put(first, "a" * 10_000)
    second = started(path)
    put(second, "b" * 10_000)
    put(first, "c")
    assert path.read_text("utf-8").splitlines() == ["a" * 10_000, "b" * 10_000, "c"]
    for task in (first, second):
        task.stop()
