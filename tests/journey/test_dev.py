"""``tieline dev``: one file, from the first record to the next version of it."""

from __future__ import annotations

import json
import queue
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"

COUNTER = """
import time
from tieline.api import Config, RetriableError, SourceRecord, SourceTask, setting

class Settings(Config):
    topic: str = setting("topic", doc="The topic.")
    last: int = setting("last", 5, doc="The last number.")

class Counter(SourceTask[Settings]):
    def start(self):
        self.at = (self.context.offset({"all": 1}) or {"at": 0})["at"]

    def poll(self, max_records, max_wait):
        if self.at >= self.config.last:
            time.sleep(min(max_wait, 0.05))
            return []
        self.at += 1
        return [
            SourceRecord(
                topic=self.config.topic,
                value={"version": 1, "at": self.at},
                source_partition={"all": 1},
                source_offset={"at": self.at},
            )
        ]
"""


class Dev:
    """A running ``tieline dev``, its output line by line."""

    def __init__(self, *words, stdin=subprocess.DEVNULL):
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tieline.cli.main", "dev", *map(str, words)],
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.out: queue.Queue[str | None] = queue.Queue()
        self.err: queue.Queue[str | None] = queue.Queue()
        self.readers = [
            threading.Thread(target=self._read, args=(self.process.stdout, self.out), daemon=True),
            threading.Thread(target=self._read, args=(self.process.stderr, self.err), daemon=True),
        ]
        for reader in self.readers:
            reader.start()

    def _read(self, stream, lines):
        with stream:
            for line in stream:
                lines.put(line.rstrip("\n"))
        lines.put(None)

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(30)
        for reader in self.readers:
            reader.join(30)
        if self.process.stdin is not None:
            self.process.stdin.close()

    def record(self):
        line = self.out.get(timeout=30)
        assert line is not None, "it ended"
        return json.loads(line)

    def says(self, text):
        """Wait for a line on standard error that holds this text."""
        lines: list[str] = []
        until = time.monotonic() + 30
        while not any(text in line for line in lines):
            line = self.err.get(timeout=max(0.1, until - time.monotonic()))
            assert line is not None, f"it ended, and said: {lines}"
            lines.append(line)
        return lines[-1]

    def end(self, number):
        self.process.send_signal(number)
        return self.process.wait(30)


@pytest.fixture
def start():
    begun = []

    def start(*words, **options):
        begun.append(Dev(*words, **options))
        return begun[-1]

    yield start
    for dev in begun:
        dev.close()


@pytest.fixture
def counter(tmp_path):
    path = tmp_path / "counter_file.py"
    path.write_text(COUNTER)
    return path


def run(*words, stdin=""):
    command = [sys.executable, "-m", "tieline.cli.main", "dev", *map(str, words)]
    return subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=60)


def test_the_records_of_a_source_are_printed_until_it_is_idle(counter):
    ended = run(counter, "--set", "topic=numbers", "--once")
    assert ended.returncode == 0, ended.stderr
    records = [json.loads(line) for line in ended.stdout.splitlines()]
    assert [record["value"]["at"] for record in records] == [1, 2, 3, 4, 5]
    assert {record["topic"] for record in records} == {"numbers"}


def test_the_default_output_is_a_readable_table(counter):
    ended = run(counter, "--set", "topic=numbers", "--set", "last=1", "--once", "--format", "rows")
    assert "time (UTC)" in ended.stdout
    assert '"at": 1' in ended.stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_changed_file_is_reloaded_where_it_was_and_a_signal_ends_it(number, counter, start):
    dev = start(counter, "--set", "topic=numbers")
    assert [dev.record()["value"] for _ in range(5)] == [{"version": 1, "at": n} for n in range(1, 6)]
    counter.write_text(COUNTER.replace('"version": 1', '"version": 2').replace('"last", 5', '"last", 7'))
    dev.says("counter_file.py has changed: reloading")
    assert [dev.record()["value"] for _ in range(2)] == [{"version": 2, "at": 6}, {"version": 2, "at": 7}]
    assert dev.end(number) == 0


def test_a_broken_version_is_explained_and_the_next_one_runs(counter, start):
    dev = start(counter, "--set", "topic=numbers")
    assert dev.record()["value"]["at"] == 1
    counter.write_text(COUNTER.replace("self.at += 1", "self.at += self.step"))
    counter.write_text(COUNTER.replace("class Counter", "clas Counter"))
    assert "counter_file.py:9: invalid syntax: clas Counter" in dev.says("invalid syntax")
    dev.says("change a file, and it starts again")
    counter.write_text(COUNTER.replace('"last", 5', '"last", 6'))
    assert [dev.record()["value"]["at"] for _ in range(5)] == [2, 3, 4, 5, 6]
    assert dev.end(signal.SIGTERM) == 0


def test_an_imported_module_is_reloaded_also_if_it_is_imported_late_or_broken(counter, tmp_path, start):
    (tmp_path / "counter_step.py").write_text("STEP = 1")
    late = "        from counter_step import STEP\n        self.at += STEP"
    counter.write_text(COUNTER.replace("        self.at += 1", late))
    dev = start(counter, "--set", "topic=numbers", "--set", "last=30")
    assert [dev.record()["value"]["at"] for _ in range(30)] == list(range(1, 31))
    time.sleep(1)  # an author does not save twice in a second
    (tmp_path / "counter_step.py").write_text("STEP = ")
    dev.says("counter_step.py has changed: reloading")
    (tmp_path / "counter_step.py").write_text("STEP = 5")
    counter.write_text(counter.read_text().replace('"version": 1', '"version": 2'))
    dev.says("counter_file.py has changed: reloading")
    assert dev.end(signal.SIGTERM) == 0


def test_a_module_that_cannot_be_imported_is_watched_until_it_can(counter, tmp_path, start):
    counter.write_text("from counter_step import STEP\n" + COUNTER.replace("self.at += 1", "self.at += STEP"))
    (tmp_path / "counter_step.py").write_text("STEP = 1")
    dev = start(counter, "--set", "topic=numbers")
    assert [dev.record()["value"]["at"] for _ in range(5)] == [1, 2, 3, 4, 5]
    (tmp_path / "counter_step.py").write_text("STEP = nothing")
    dev.says("name 'nothing' is not defined")
    dev.says("change a file, and it starts again")
    (tmp_path / "counter_step.py").write_text("STEP = 3")
    dev.says("counter_step.py has changed: reloading")
    counter.write_text(counter.read_text().replace('"last", 5', '"last", 8'))
    assert dev.record()["value"]["at"] == 8
    assert dev.end(signal.SIGTERM) == 0


def test_the_file_of_settings_is_reloaded_also_after_a_broken_version(counter, tmp_path, start):
    settings = tmp_path / "settings.yaml"
    settings.write_text("topic: one\nlast: 1\n")
    dev = start(counter, "--settings", settings)
    assert dev.record()["topic"] == "one"
    settings.write_text("topic: [\n")
    dev.says("change a file, and it starts again")
    settings.write_text("topic: two\nlast: many\n")
    dev.says("last: Input should be a valid integer")
    settings.write_text("topic: two\nlast: 2\n")
    assert dev.record()["topic"] == "two"
    assert dev.end(signal.SIGTERM) == 0


def test_the_worker_ends_with_a_command_that_is_killed(counter, start):
    dev = start(counter, "--set", "topic=numbers")
    dev.record()
    (worker,) = children_of(dev.process.pid)
    dev.process.kill()
    until = time.monotonic() + 20
    while is_alive(worker):
        assert time.monotonic() < until, "the worker still runs"
        time.sleep(0.05)


def children_of(pid):
    command = ["ps", "-A", "-o", "pid=,ppid="]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    pairs = [tuple(map(int, line.split())) for line in lines]
    return [child for child, parent in pairs if parent == pid]


def is_alive(pid):
    command = ["ps", "-o", "stat=", "-p", str(pid)]
    state = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    return bool(state) and not state.startswith("Z")  # the container's first process may not reap it


def test_an_error_shows_the_line_in_the_authors_file(counter):
    counter.write_text(COUNTER.replace("self.at += 1", "self.at += self.step"))
    ended = run(counter, "--set", "topic=numbers", "--once")
    assert ended.returncode == 1
    assert "AttributeError: 'Counter' object has no attribute 'step'" in ended.stderr
    assert "  counter_file.py:17 in poll: self.at += self.step" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_missing_setting_is_named_and_nothing_runs(counter):
    ended = run(counter, "--once")
    assert ended.returncode == 2
    assert "  - topic: is required" in ended.stderr
    assert ended.stdout == ""


def test_settings_come_from_a_file_and_the_command_line_wins(counter, tmp_path):
    (tmp_path / "settings.yaml").write_text("topic: from-the-file\nlast: 3\n")
    ended = run(counter, "--settings", tmp_path / "settings.yaml", "--set", "last=1", "--once")
    assert [json.loads(line)["topic"] for line in ended.stdout.splitlines()] == ["from-the-file"]


def test_a_sink_gets_lines_of_json_and_of_text():
    ended = run(EXAMPLES / "smallest_sink.py", "--set", "prefix=> ", stdin='{"a": 1}\nhello\n\n[2]\n')
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines() == ["> {'a': 1}", "> hello", "> [2]"]


def test_a_sink_gets_a_file(tmp_path):
    (tmp_path / "lines.txt").write_text("".join(f"{number}\n" for number in range(1200)))
    ended = run(EXAMPLES / "smallest_sink.py", "--input", tmp_path / "lines.txt")
    assert ended.stdout.splitlines() == [str(number) for number in range(1200)]


def test_a_sink_is_reloaded_while_lines_are_typed(tmp_path, start):
    path = tmp_path / "printer_file.py"
    text = (EXAMPLES / "smallest_sink.py").read_text()
    path.write_text(text)
    dev = start(path, stdin=subprocess.PIPE)
    dev.process.stdin.write("one\n")
    dev.process.stdin.flush()
    assert dev.out.get(timeout=30) == "one"
    path.write_text(text.replace("{record.value}", "{record.value}!"))
    dev.says("has changed: reloading")
    dev.process.stdin.write("two\n")
    dev.process.stdin.close()
    assert dev.out.get(timeout=30) == "two!"
    assert dev.process.wait(30) == 0
