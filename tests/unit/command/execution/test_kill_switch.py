"""The kill switch is engaged unless its file is certainly missing, and checking it blocks no caller."""

import os
import stat
import threading
import time

import pytest

from tieline_connectors.command import watched_file
from tieline_connectors.command.watched_file import BoundedCall, FileTimeoutError, kill_switch_reason


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda path: path.touch(), ""),
        (lambda path: path.write_text("fire alarm \nmore"), "fire alarm"),
        (lambda path: path.write_bytes(b"\xff" * 500), "\ufffd" * 200),
        (os.mkfifo, "its file is a FIFO"),
        (lambda path: path.mkdir(), "its file is a folder"),
        (lambda path: path.symlink_to("/dev/zero"), "its file is a device"),
        (lambda path: os.mknod(path, stat.S_IFSOCK | 0o600), "its file is a socket"),
        (lambda path: path.symlink_to("nowhere"), "its file is a broken link"),
        (
            lambda path: path.symlink_to(path),
            "its file cannot be accessed (Too many levels of symbolic links)",
        ),
    ],
)
def test_whatever_is_there_engages_the_switch_with_its_reason(tmp_path, make, why):
    path = tmp_path / "stop"
    assert kill_switch_reason(path) is None
    make(path)
    assert kill_switch_reason(path) == why


def test_a_folder_that_is_gone_engages_the_switch(tmp_path):
    assert (
        kill_switch_reason(tmp_path / "mount" / "stop") == f"its folder {tmp_path / 'mount'} does not exist"
    )
    (tmp_path / "file").touch()
    assert kill_switch_reason(tmp_path / "file" / "stop") == "its file cannot be accessed (Not a directory)"


def test_a_check_that_hangs_times_out_once_and_delays_no_other_caller():
    answers = threading.Event()

    def look():
        answers.wait()
        return "found"

    looker = BoundedCall(look, timeout=0.2)
    began = time.monotonic()
    for _ in range(50):
        with pytest.raises(FileTimeoutError):
            looker()
    assert time.monotonic() - began < 5, "50 looks of 0.2 s each would be 10"
    answers.set()
    deadline = time.monotonic() + 10
    while True:
        try:
            assert looker() == "found"
            return
        except FileTimeoutError:
            assert time.monotonic() < deadline


def test_each_check_starts_after_its_request():
    looks = iter(range(1000))
    looker = BoundedCall(lambda: next(looks))
    assert [looker() for _ in range(1000)] == list(range(1000))


def test_an_error_of_a_check_is_raised_to_its_caller():
    def look():
        raise PermissionError(13, "Permission denied")

    with pytest.raises(PermissionError):
        BoundedCall(look)()


def test_a_check_requested_while_its_thread_ends_runs_in_the_next_one(monkeypatch):
    monkeypatch.setattr(watched_file, "_IDLE", 0.001)
    looker = BoundedCall(lambda: "found", timeout=0.05)
    for number in range(300):
        assert looker() == "found"
        time.sleep(0.0009 + 0.000_001 * number)  # about when the thread gives up
