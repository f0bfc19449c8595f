"""Runs between the lab and a server, so that the server never outlives the lab.

``tieline_lab.process`` runs it as a plain file: ``python -I -S child.py COMMAND…``. Standard input is a
socket whose other end only the lab holds. This program starts the command in its own process group, answers
with the command's pid, and sends to that group each signal whose number arrives over the socket. The end of
the socket means SIGKILL: the lab closes it for that purpose, and the kernel closes it when the lab has ended.

PR_SET_PDEATHSIG would not do: it fires at the end of the *thread* that started the child, and does not reach
the child's own children. Signals pass through here, since a pid is certain to belong to the child only as
long as its parent has not reaped it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress


def _pass_on_signals(group: int) -> None:
    # An error is an end, too: ECONNRESET if the lab ended before it read our answer.
    with suppress(OSError):
        while numbers := os.read(0, 64):
            for number in numbers:
                with suppress(ProcessLookupError):
                    os.killpg(group, number)
    os.killpg(group, signal.SIGKILL)


def main(command: list[str]) -> int:
    """Run the command to its end and return its exit status (128 + n after signal n)."""
    server = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    # The lab may have ended already; the thread then sees the end of the socket at once.
    with suppress(BrokenPipeError):
        os.write(0, b"%d\n" % server.pid)
    threading.Thread(target=_pass_on_signals, args=(server.pid,), daemon=True).start()
    os.waitid(os.P_PID, server.pid, os.WEXITED | os.WNOWAIT)
    # Not reaped yet, so that the group still belongs to the server: end its remaining processes.
    os.killpg(server.pid, signal.SIGKILL)
    status = server.wait()
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
