"""Runs between agent and worker, so that no worker outlives its agent.

Run as a plain file: ``python -I -S keeper.py GRACE COMMAND…``. Standard input is a pipe whose other end only
the agent holds. The command runs in its own process group; its pid is the first line of the output. The end
of the pipe stops the command: SIGTERM, and SIGKILL after GRACE seconds. The agent closes the pipe to stop the
command, and the kernel closes it when the agent has ended for any reason.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress

_PR_SET_PDEATHSIG = 1
_NOT_STARTED = 127


def _die_with_keeper() -> None:
    # The pipe does not cover the end of the keeper itself. Its main thread starts the command and stays.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _stop_at_the_end_of_the_pipe(group: int, grace: float, ended: threading.Event) -> None:
    with suppress(OSError):
        while os.read(0, 64):
            pass
    with suppress(ProcessLookupError):
        os.killpg(group, signal.SIGTERM)
    if not ended.wait(grace):
        with suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)


def main(grace: float, command: list[str]) -> int:
    """Run the command to its end and return its exit status (128 + n after signal n)."""
    # A signal for the platform's whole group reaches the worker, too, which answers it. These are handlers,
    # since the worker would inherit ignored signals.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    try:
        worker = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, start_new_session=True, preexec_fn=_die_with_keeper
        )
    except OSError as error:
        print(f"0\n{command[0]} cannot be started: {error.strerror}", flush=True)
        return _NOT_STARTED
    # The agent may have ended already; the thread then sees the end of the pipe at once.
    with suppress(BrokenPipeError):
        print(worker.pid, flush=True)
    ended = threading.Event()
    watch = threading.Thread(
        target=_stop_at_the_end_of_the_pipe, args=(worker.pid, grace, ended), daemon=True
    )
    watch.start()
    os.waitid(os.P_PID, worker.pid, os.WEXITED | os.WNOWAIT)
    ended.set()
    # Not reaped yet, so that the group still belongs to the worker: end its remaining processes.
    os.killpg(worker.pid, signal.SIGKILL)
    status = worker.wait()
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]), sys.argv[2:]))
