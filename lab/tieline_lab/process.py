"""Child processes that write to a log file, report when they are ready, and never outlive this process."""

from __future__ import annotations

import random
import signal
import socket
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from typing_extensions import Self

from tieline.testing.signals import with_default_signals

_dice = random.SystemRandom()  # a seeded one gives two test runs on one machine the same ports
_CHILD = Path(__file__).with_name("child.py")


class ProcessError(Exception):
    """A child process failed; the message has the end of its output."""


class Server(ABC):
    """A server that can be started and stopped, also as a context."""

    @abstractmethod
    def start(self) -> None:
        """Start it, and return when clients can use it."""

    @abstractmethod
    def stop(self) -> None:
        """Stop it in good order. Does nothing if it does not run."""

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class Process:
    """A child process that can be started and stopped, also as a context. Not thread-safe.

    ``name`` is for messages. ``command`` is the program with its arguments. ``log`` gets its output,
    appended. ``ready`` is called repeatedly after the start until it returns true; ``None`` means ready at
    once. ``env`` replaces the environment; ``cwd`` is its working folder.

    Its own child processes end with it. If this process dies, even by SIGKILL, all of them are killed
    (``child.py``). Ctrl-C at a terminal does not reach them. Signals have their default dispositions.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        log: Path,
        *,
        ready: Callable[[], bool] | None = None,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> None:
        self.name = name
        self.log = log
        self._command = [str(word) for word in command]
        self._ready = ready
        self._env = env
        self._cwd = cwd
        self._child: subprocess.Popen[bytes] | None = None
        self._link: socket.socket | None = None
        self._pid = 0

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._child is not None and self._child.poll() is None

    @property
    def pid(self) -> int:
        """The process id, which is also that of its process group. 0 before the first start."""
        return self._pid

    @property
    def status(self) -> int | None:
        """The exit status of the last run (128 + n after signal n), or ``None`` while it runs."""
        return None if self._child is None else self._child.poll()

    def start(self, timeout: float = 60.0) -> None:
        """Start, and return when it is ready. Raises ``ProcessError`` if it is not within ``timeout`` s."""
        if self.running:
            raise ProcessError(f"{self.name} is already running")
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self._link, far_end = socket.socketpair()
        for end in (self._link, far_end):  # with socket.setdefaulttimeout they would not block
            end.setblocking(True)
        # Popen is inside, too: a signal may interrupt it when the child exists but is not known here yet.
        try:
            with far_end, self.log.open("ab") as log:
                self._child = subprocess.Popen(
                    with_default_signals([sys.executable, "-I", "-S", str(_CHILD), *self._command]),
                    stdin=far_end.fileno(),
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=self._env,
                    cwd=self._cwd,
                    start_new_session=True,
                )
            self._pid = int(self._link.makefile().readline() or 0)
            if not self._pid:
                raise ProcessError(f"{self.name} could not be started{self.last_lines()}")
            self._await_ready(timeout)
        except BaseException:
            self.kill()
            raise

    def wait(self, timeout: float) -> int:
        """Wait until it ends by itself; return its exit status."""
        if self._child is None:
            raise ProcessError(f"{self.name} was not started")
        try:
            return self._child.wait(timeout)
        except subprocess.TimeoutExpired:
            raise ProcessError(f"{self.name} did not end in {timeout:g} s{self.last_lines()}") from None

    def stop(self, timeout: float = 15.0) -> None:
        """Send SIGTERM, and SIGKILL after ``timeout`` seconds. Does nothing if it does not run."""
        if self._child is not None and self.running:
            self.signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                self._child.wait(timeout)
        self.kill()

    def kill(self) -> None:
        """Send SIGKILL to it and its children, and wait for its end. Does nothing if it does not run."""
        if self._link is not None:
            self._link.close()
            self._link = None
        if self._child is not None:
            self._child.wait()

    def restart(self, timeout: float = 60.0) -> None:
        """Stop it if it runs, and start it again."""
        self.stop()
        self.start(timeout)

    def signal(self, number: int) -> None:
        """Send a signal, also SIGSTOP or SIGCONT, to it and its children. Does nothing if it does not run."""
        if self._link is not None:
            with suppress(OSError):
                self._link.sendall(bytes([number]))

    def last_lines(self, count: int = 20) -> str:
        """Return the end of its log, with the log's path, for error messages."""
        lines = self.log.read_text(errors="replace").splitlines()[-count:]
        return "".join(f"\n  | {line[:300]}" for line in lines) + f"\n  its log: {self.log}"

    def _await_ready(self, timeout: float) -> None:
        end = time.monotonic() + timeout
        while self._ready is not None and not self._ready():
            if not self.running:
                raise ProcessError(f"{self.name} ended with status {self.status}{self.last_lines()}")
            if time.monotonic() > end:
                raise ProcessError(f"{self.name} was not ready in {timeout:g} s{self.last_lines()}")
            time.sleep(0.05)


def run(command: Sequence[str], env: Mapping[str, str] | None = None, cwd: Path | None = None) -> str:
    """Run a command to its end; return its standard output. Raises ``ProcessError``."""
    completed = subprocess.run(
        command,
        env=env,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if completed.returncode:
        output = (completed.stdout + completed.stderr)[-3000:]
        raise ProcessError(
            f"{' '.join(command)} failed: it ended with status {completed.returncode}\n{output}"
        )
    return completed.stdout


def free_port() -> int:
    """Return an unused TCP port of 127.0.0.1, below the ports that the kernel assigns to clients.

    A server's port must not be an ephemeral one. While the server is down, the kernel could assign that port
    to one of its clients, which would connect to itself and block the restarted server.
    """
    first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    while True:
        port = _dice.randrange(10_000, first)
        if can_listen(port):
            return port


def can_listen(port: int) -> bool:
    """Return whether a server could listen on this port of 127.0.0.1 now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def port_open(port: int) -> bool:
    """Return whether a server listens on this port of 127.0.0.1."""
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(("127.0.0.1", port)) == 0
