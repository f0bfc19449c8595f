"""A thread that logs never waits for the reader of the log, and no dropped line goes uncounted."""

from __future__ import annotations

import json
import logging
import os
import re
import select
import sys
import threading

import pytest

from tieline import logs
from tieline.log_queue import QueuedHandler

DROPPED = re.compile(r"(\d+) log lines were dropped")
LINE = "x" * 200


def dropped_count(line):
    """The number that the notice of a gap reports; 0 for any other line."""
    match = DROPPED.search(line)
    return int(match[1]) if match else 0


class Pipe:
    """A pipe that is read only by ``drain``."""

    def __init__(self):
        self.reading, writing = os.pipe()
        self.writer = os.fdopen(writing, "w")

    def drain(self, handler):
        """Read what waits until the handler has flushed, and end the writer."""
        read = bytearray()

        def collect():
            while chunk := os.read(self.reading, 1 << 16):
                read.extend(chunk)

        reader = threading.Thread(target=collect)
        reader.start()
        handler.flush()
        handler.close()
        self.writer.close()
        reader.join(30)
        assert not reader.is_alive()
        return read.decode().splitlines()


@pytest.fixture
def pipe():
    pipe = Pipe()
    yield pipe
    pipe.writer.close()
    os.close(pipe.reading)


@pytest.fixture
def log():
    log = logging.getLogger("tieline.log_queue.test")
    log.propagate = False
    yield log
    log.handlers.clear()
    log.propagate = True


def log_in_thread(log, first, count):
    """Log from a thread that may hang, and fail if it does."""

    def run():
        for number in range(first, first + count):
            log.warning("%d %s", number, LINE)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(30)
    assert not thread.is_alive(), "the thread that logs waits for the reader of the log"


def test_a_thread_that_logs_into_an_unread_pipe_does_not_wait(pipe, log):
    handler = QueuedHandler(pipe.writer, max_lines=100)
    log.addHandler(handler)
    log_in_thread(log, 0, 5_000)
    lines = pipe.drain(handler)
    written = [int(line.split()[0]) for line in lines if line.endswith(LINE)]
    assert written == sorted(written)
    assert written[:100] == list(range(100))
    counts = [count for line in lines if (count := dropped_count(line))]
    assert sum(counts) + len(written) == 5_000
    assert len(lines) == len(written) + len(counts)


def test_the_first_line_after_a_gap_says_how_many_were_dropped(pipe, log):
    handler = QueuedHandler(pipe.writer, max_lines=100)
    log.addHandler(handler)
    log_in_thread(log, 0, 5_000)
    waiting = select.poll()  # not select.select, which refuses the numbers of a process with many open files
    waiting.register(pipe.reading, select.POLLIN)
    read, number = b"", 5_000
    while not dropped_count(read.decode()):  # a reader comes back
        if waiting.poll(10):
            read += os.read(pipe.reading, 1 << 16)
        log.warning("%d %s", number, LINE)
        number += 1
    lines = [*read.decode().splitlines(), *pipe.drain(handler)]
    gap = next(index for index, line in enumerate(lines) if dropped_count(line))
    assert [int(line.split()[0]) for line in lines[:gap]] == list(range(gap))
    assert int(lines[gap + 1].split()[0]) == gap + dropped_count(lines[gap])


def test_lines_that_are_read_in_time_are_all_written_in_order(pipe, log):
    handler = QueuedHandler(pipe.writer)
    log.addHandler(handler)
    log_in_thread(log, 0, 200)
    assert [int(line.split()[0]) for line in pipe.drain(handler)] == list(range(200))


def test_the_end_of_a_process_does_not_wait_for_a_reader(pipe, log):
    handler = QueuedHandler(pipe.writer, max_lines=10)
    log.addHandler(handler)
    log_in_thread(log, 0, 5_000)

    def end():
        handler.flush()
        handler.close()

    ending = threading.Thread(target=end, daemon=True)
    ending.start()
    ending.join(30)
    assert not ending.is_alive()
    assert os.read(pipe.reading, 1 << 20)  # so that the handler's own thread ends


def test_a_closed_reader_is_not_an_error(pipe, log):
    handler = QueuedHandler(pipe.writer)
    log.addHandler(handler)
    os.close(pipe.reading)
    log_in_thread(log, 0, 5_000)
    handler.flush()
    handler.close()
    pipe.reading = os.open(os.devnull, os.O_RDONLY)


@pytest.mark.slow
def test_the_notice_of_a_gap_names_no_connector(pipe, monkeypatch):
    monkeypatch.setattr(sys, "stderr", pipe.writer)
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        logs.set_up(style="json", level="INFO")
        handler = root.handlers[0]
        with logs.about(connector="c", task=0):
            for number in range(20_000):
                logging.getLogger("tieline.x").warning("%d", number)
        lines = [json.loads(line) for line in pipe.drain(handler)]
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
    notices = [line for line in lines if dropped_count(line["event"])]
    assert notices
    assert not any("connector" in line for line in notices)
    assert all(line["connector"] == "c" for line in lines if line not in notices)
    assert sum(dropped_count(line["event"]) for line in notices) + len(lines) - len(notices) == 20_000
