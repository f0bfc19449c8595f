"""A thread for work beside a task or a page, from ``start`` to ``stop``."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod


class BackgroundThread(ABC):
    """Runs ``run`` in a daemon thread. A subclass calls ``super().__init__`` with the thread's name."""

    def __init__(self, name: str) -> None:
        self.stopping = threading.Event()
        """Set by ``stop``; ``run`` waits on it instead of sleeping."""
        self._thread = threading.Thread(target=self.run, name=name, daemon=True)

    @abstractmethod
    def run(self) -> None:
        """Work until ``stopping`` is set. Called once, in the thread; what it raises ends the thread."""

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread, and wait for that up to five seconds. Does nothing if it was not started."""
        self.stopping.set()
        if self._thread.ident is not None:
            self._thread.join(5.0)
