"""One run of a program under a keeper, from its start to its end."""

from __future__ import annotations

import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

_KEEPER = Path(__file__).with_name("keeper.py")
_MAX_LINE = 65536


class Concurrency(NamedTuple):
    """How to start processes, wait and run in the background: by threads, or by gevent's equivalents."""

    popen: Callable[..., Any]
    queue: Callable[[], Any]
    spawn: Callable[..., Any]


def _thread(target: Callable[..., Any], *arguments: Any) -> None:
    threading.Thread(target=target, args=arguments, daemon=True).start()


THREADS = Concurrency(subprocess.Popen, queue.Queue, _thread)


class Run:
    """A program that runs from the construction of this object, and ends with this process.

    ``grace`` is the time between the request to stop and SIGKILL, in seconds. ``pid`` is 0 if the program
    could not be started; ``lines`` then has the reason. The caller must read ``lines``, or the program
    blocks.
    """

    def __init__(
        self,
        concurrency: Concurrency,
        command: Sequence[str],
        environment: Mapping[str, str],
        folder: Path,
        grace: float,
    ) -> None:
        self._process = concurrency.popen(
            [sys.executable, "-I", "-S", str(_KEEPER), str(grace), *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=dict(environment),
            cwd=str(folder),
            start_new_session=True,
        )
        first = self._process.stdout.readline().strip()
        self.pid = int(first) if first.isdigit() else 0
        self.keeper_pid: int = self._process.pid

    def lines(self) -> Iterator[str]:
        """Yield the lines of its output until it ends."""
        while line := self._process.stdout.readline(_MAX_LINE):
            yield line.decode("utf-8", "replace").rstrip("\n")

    def wait(self) -> int:
        """Wait for its end after all lines are read; return its exit status (128 + n after signal n)."""
        status: int = self._process.wait()
        self.stop()
        self._process.stdout.close()
        return status

    def stop(self) -> None:
        """Ask the program to stop; returns at once."""
        with suppress(OSError):
            self._process.stdin.close()
