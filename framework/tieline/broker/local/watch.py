"""Noticing commits: those of this process at once, those of other processes within milliseconds."""

from __future__ import annotations

import os
import selectors
import threading
import time
from pathlib import Path

from tieline.broker.local.file import connect

_LOOK_EVERY = 0.01  # a guest: SQLite tells other processes nothing, somebody has to look
_LOOK_ANYWAY = 1.0  # the owner, to whom guests ring: for one that died between its commit and the bell


class CommitWatch:
    """A version that grows with every commit to a file. Safe for many threads.

    A guest rings the owner's bell, a named pipe beside the file, after each commit: the owner sleeps
    until then. A guest itself looks again and again, but only while somebody waits; so does an owner
    where no named pipe can be made.
    """

    def __init__(self, path: Path, *, owner: bool) -> None:
        self._connection = connect(path, read_only=True)
        self._path = path.with_name(path.name + ".bell")
        self._bell = _make_bell(self._path) if owner else None
        self._owner = owner
        self._changed = threading.Condition()
        self._version = 0
        self._seen = -1
        self._waiting = 0
        self._closed = False
        self._thread: threading.Thread | None = None

    def look(self) -> int:
        """The version now."""
        with self._changed:
            if not self._closed:
                seen = self._connection.pragma("data_version")
                if seen != self._seen:
                    self._seen = seen
                    self._grow()
            return self._version

    def committed(self) -> None:
        """Something was committed by this process: called by the writer, in its thread."""
        self.look()
        if not self._owner:
            self._ring()

    def wake(self) -> None:
        """Let everybody who waits look again."""
        with self._changed:
            self._grow()

    def wait(self, version: int, timeout: float) -> int:
        """Wait until the version is another than the one given; the version then."""
        deadline = time.monotonic() + timeout
        with self._changed:
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._run, name=self._path.stem, daemon=True)
                self._thread.start()
            self._waiting += 1
            if self._waiting == 1:
                self._changed.notify_all()
            while self._version == version and not self._closed:
                left = deadline - time.monotonic()
                if left <= 0 or not self._changed.wait(left):
                    break
            self._waiting -= 1
            return self._version

    def close(self) -> None:
        """End every ``wait``, and let the file go."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._bell is not None:
            self._ring()
        if self._thread is not None:
            self._thread.join()
        if self._bell is not None:
            os.close(self._bell)
        self._connection.close()

    def _grow(self) -> None:
        self._version += 1
        self._changed.notify_all()

    def _run(self) -> None:
        with selectors.DefaultSelector() as bells:  # select() itself takes no descriptor above 1,023
            if self._bell is not None:
                bells.register(self._bell, selectors.EVENT_READ)
            while self._somebody_waits():
                self.look()
                if self._bell is None:
                    time.sleep(_LOOK_EVERY)
                elif bells.select(_LOOK_ANYWAY):
                    os.read(self._bell, 4096)

    def _somebody_waits(self) -> bool:
        """Once somebody waits: true. Once closed: false."""
        with self._changed:
            while self._waiting == 0 and not self._closed:
                self._changed.wait()
            return not self._closed

    def _ring(self) -> None:
        try:
            bell = os.open(self._path, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:
            return  # no owner runs, or it has no bell
        try:
            os.write(bell, b"\0")
        except OSError:
            pass  # full: it rings already
        finally:
            os.close(bell)


def _make_bell(path: Path) -> int | None:
    try:
        path.unlink(missing_ok=True)  # whatever an earlier owner, or somebody else, left there
        os.mkfifo(path, 0o600)
        path.chmod(0o600)  # whatever the umask is
        return os.open(path, os.O_RDWR | os.O_NONBLOCK)  # for both: it never ends, and never waits
    except OSError:
        return None
