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


class Ways(NamedTuple):
    """How to start and to wait: Python's own threads, or what gevent has in their place."""

    popen: Callable[..., Any]
    queue: Callable[[], Any]
    spawn: Callable[..., Any]


def _thread(target: Callable[..., Any], *arguments: Any) -> None:
    threading.Thread(target=target, args=arguments, daemon=True).start()


THREADS = Ways(subprocess.Popen, queue.Queue, _thread)


class Run:
    """A program, running from the moment this is made.

    ``grace``: seconds between the request to stop and SIGKILL. It ends with this process, however that ends.
    ``pid`` is 0 if it could not be started; the lines then say why. Its output is to be read (``lines``), or
    it waits for a reader.
    """

    def __init__(
        self, ways: Ways, command: Sequence[str], environment: Mapping[str, str], folder: Path, grace: float
    ) -> None:
        self._process = ways.popen(
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

    def lines(self) -> Iterator[str]:
        """The lines of its output, until it ends."""
        while line := self._process.stdout.readline(_MAX_LINE):
            yield line.decode("utf-8", "replace").rstrip("\n")

    def wait(self) -> int:
        """Wait for its end, after its lines are read; returns its exit status (128 + n after signal n)."""
        status: int = self._process.wait()
        self.stop()
        self._process.stdout.close()
        return status

    def stop(self) -> None:
        """Ask it to stop; returns at once."""
        with suppress(OSError):
            self._process.stdin.close()
