"""The process between the lab and a server ends the server when the lab has ended, also during the start."""

import socket
import subprocess
import sys

import psutil
import pytest

from tieline_lab import child


@pytest.mark.parametrize("lab_ends", ["before the server's start", "before it has read the answer"])
def test_a_server_ends_when_the_lab_has_ended(tmp_path, lab_ends):
    lab_end, child_end = socket.socketpair()
    lab_end.settimeout(20)
    if lab_ends == "before the server's start":
        lab_end.close()
    server = [sys.executable, "-c", "import time; time.sleep(100)", str(tmp_path)]
    child_process = subprocess.Popen(
        [sys.executable, "-I", "-S", child.__file__, *server], stdin=child_end.fileno()
    )
    child_end.close()
    try:
        if lab_end.fileno() >= 0:
            lab_end.recv(64, socket.MSG_PEEK)  # the answer has arrived, and stays unread
            lab_end.close()
        assert child_process.wait(20) == 128 + 9
        processes = psutil.process_iter(["cmdline"])
        assert [p for p in processes if str(tmp_path) in (p.info["cmdline"] or [])] == []
    finally:
        for process in psutil.Process(child_process.pid).children() if child_process.poll() is None else []:
            process.kill()
        child_process.kill()
        child_process.wait()
