"""Noticing commits: of this process at once, of other processes within milliseconds."""

from __future__ import annotations

import os
import selectors
import threading
import time
from pathlib import Path

from tieline.broker.local.file import connect

_GUEST_CHECKS_EVERY = 0.01  # seconds; SQLite does not notify other processes
_OWNER_CHECKS_EVERY = 1.0  # seconds, without a bell: for a guest that died before it rang


class CommitWatch:
    """Waits for commits to a file, by a version that grows with each. Any thread may use it.

    The owner sleeps until a guest rings its bell, a named pipe beside the file, after a commit. A guest
    itself checks periodically, but only while a thread waits. An owner does the same if no named pipe can be
    created.
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
        """Check for commits, and return the present version."""
        with self._changed:
            if not self._closed:
                seen = self._connection.pragma("data_version")
                if seen != self._seen:
                    self._seen = seen
                    self._grow()
            return self._version

    def committed(self) -> None:
        """Note a commit of this process. Called by the writer, in its thread."""
        self.look()
        if not self._owner:
            self._ring()

    def wake(self) -> None:
        """End every ``wait``."""
        with self._changed:
            self._grow()

    def wait(self, version: int, timeout: float) -> int:
        """Wait until the version differs from the given one. Return the version then."""
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
        """End every ``wait``, and close the file."""
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
        with selectors.DefaultSelector() as bells:  # select() takes no descriptor above 1,023
            if self._bell is not None:
                bells.register(self._bell, selectors.EVENT_READ)
            while self._wait_for_waiter():
                self.look()
                if self._bell is None:
                    time.sleep(_GUEST_CHECKS_EVERY)
                elif bells.select(_OWNER_CHECKS_EVERY):
                    os.read(self._bell, 4096)

    def _wait_for_waiter(self) -> bool:
        """Wait until a thread waits for a commit. Return ``False`` once this is closed."""
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
            pass  # full: it is ringing already
        finally:
            os.close(bell)


def _make_bell(path: Path) -> int | None:
    try:
        path.unlink(missing_ok=True)  # of an earlier owner
        os.mkfifo(path, 0o600)
        path.chmod(0o600)  # for any umask
        return os.open(
            path, os.O_RDWR | os.O_NONBLOCK
        )  # for both directions: it never ends, and never blocks
    except OSError:
        return None
