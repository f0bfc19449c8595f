"""What stands between the lab and a server ends the server whenever the lab is gone, in the start too."""

import socket
import subprocess
import sys

import psutil
import pytest

from tieline_lab import child


@pytest.mark.parametrize("lab_goes", ["before the server's start", "before it has read the answer"])
def test_a_server_ends_when_the_lab_is_gone(tmp_path, lab_goes):
    ours, theirs = socket.socketpair()
    ours.settimeout(20)
    if lab_goes == "before the server's start":
        ours.close()
    server = [sys.executable, "-c", "import time; time.sleep(100)", str(tmp_path)]
    between = subprocess.Popen([sys.executable, "-I", "-S", child.__file__, *server], stdin=theirs.fileno())
    theirs.close()
    try:
        if ours.fileno() >= 0:
            ours.recv(64, socket.MSG_PEEK)  # it is there, and stays unread
            ours.close()
        assert between.wait(20) == 128 + 9
        assert [
            p for p in psutil.process_iter(["cmdline"]) if str(tmp_path) in (p.info["cmdline"] or [])
        ] == []
    finally:
        for process in psutil.Process(between.pid).children() if between.poll() is None else []:
            process.kill()
        between.kill()
        between.wait()
