"""One thread of a task, and how it ended."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from tieline.logs import about
from tieline.runtime.errors.retry import TaskFailedError
from tieline.runtime.task.environment import TaskEnvironment

log = logging.getLogger(__name__)


class TaskThread:
    """One thread of a task: its state, and the sentence that says why it failed."""

    def __init__(
        self,
        environment: TaskEnvironment,
        role: str,
        run: Callable[[], None],
        ask_to_stop: Callable[[], None],
    ) -> None:
        self.environment = environment
        self.role = role
        self.state = "UNASSIGNED"
        self.trace: str | None = None
        self.interrupt = ask_to_stop
        self._run = run
        self._thread = threading.Thread(target=self._main, name=f"{environment.id} {role}", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self.state = "RUNNING"
        self._thread.start()

    def join(self, timeout: float) -> bool:
        """Wait for its end; whether it has ended."""
        if self._thread.ident is not None:
            self._thread.join(max(0.0, timeout))
        return not self._thread.is_alive()

    def _main(self) -> None:
        with about(connector=self.environment.connector, task=self.environment.task):
            try:
                self._run()
                self.state = "STOPPED"
            except TaskFailedError as error:
                self._failed(str(error))
            except BaseException as error:  # also SystemExit: a dead thread must not look alive
                self._failed(f"{type(error).__name__}: {error}")
                log.exception("the task failed on an error that nobody expected")

    def _failed(self, trace: str) -> None:
        self.trace, self.state = trace, "FAILED"
        log.error("the task failed: %s", trace, extra={"state": "FAILED", "role": self.role})
