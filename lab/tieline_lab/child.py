"""Stands between the lab and a server, so that the server never outlives the lab.

Run by ``tieline_lab.process`` as a plain file: ``python -I -S child.py COMMAND…``. Standard input is a socket
whose other end only the lab holds. It starts the command in a process group of its own, answers
with the command's pid, and then sends to that group each signal whose number comes over the
socket. The socket's end means SIGKILL: the lab asks for it so, and the kernel closes the socket
when the lab is gone, however it went.

Why not PR_SET_PDEATHSIG: it fires when the *thread* that started the child ends, and does not reach
what the child has started. Signals pass through here, since only a parent that has not yet reaped
its child can know that a pid still means that child.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress


def _pass_on_signals(group: int) -> None:
    # An error is an end too: ECONNRESET where the lab went before it read our answer.
    with suppress(OSError):
        while numbers := os.read(0, 64):
            for number in numbers:
                with suppress(ProcessLookupError):
                    os.killpg(group, number)
    os.killpg(group, signal.SIGKILL)


def main(command: list[str]) -> int:
    """Run the command to its end and return its exit status (128 + n after signal n)."""
    server = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    with suppress(BrokenPipeError):  # the lab is gone already: the thread sees the end at once
        os.write(0, b"%d\n" % server.pid)
    threading.Thread(target=_pass_on_signals, args=(server.pid,), daemon=True).start()
    os.waitid(os.P_PID, server.pid, os.WEXITED | os.WNOWAIT)
    # Not reaped yet, so the group is still the server's: end what it has left running.
    os.killpg(server.pid, signal.SIGKILL)
    status = server.wait()
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
