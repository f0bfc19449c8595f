"""Noticing commits: those of this process at once, those of other processes within milliseconds."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from tieline.broker.local.file import connect

_EVERY = 0.01  # SQLite tells other processes nothing: somebody has to look


class Watch:
    """A version that grows with every commit to a file. Safe for many threads.

    Its thread looks for the commits of others only while somebody waits.
    """

    def __init__(self, path: Path) -> None:
        self._connection = connect(path, read_only=True)
        self._name = f"{path.name} watch"
        self._changed = threading.Condition()
        self._version = 0
        self._seen = -1
        self._waiting = 0
        self._closed = False
        self._thread: threading.Thread | None = None

    def look(self) -> int:
        """The version now. Called by the writer after each commit, too."""
        with self._changed:
            if not self._closed:
                seen = self._connection.pragma("data_version")
                if seen != self._seen:
                    self._seen = seen
                    self._grow()
            return self._version

    def wake(self) -> None:
        """Let everybody who waits look again."""
        with self._changed:
            self._grow()

    def wait(self, version: int, timeout: float) -> int:
        """Wait until the version is another than the one given; the version then."""
        deadline = time.monotonic() + timeout
        with self._changed:
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
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
        if self._thread is not None:
            self._thread.join()
        self._connection.close()

    def _grow(self) -> None:
        self._version += 1
        self._changed.notify_all()

    def _run(self) -> None:
        while True:
            with self._changed:
                while self._waiting == 0 and not self._closed:
                    self._changed.wait()
                if self._closed:
                    return
            self.look()
            time.sleep(_EVERY)
