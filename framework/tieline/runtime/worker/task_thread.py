"""The thread that runs a task of a connector; it outlives the runners that are built for it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from tieline.logs import about, redaction
from tieline.runtime.errors.retry_state import TaskFailedError
from tieline.runtime.errors.traces import describe_error
from tieline.runtime.task.environment import TaskEnvironment
from tieline.runtime.task.ledger import Counts
from tieline.runtime.worker.runner_protocol import Runner

log = logging.getLogger(__name__)


class TaskThread:
    """Runs one runner at a time, in a thread of its own, and reports how the last one ended.

    The first runner is built at once, which may raise. ``on_failure`` is called from the thread of a runner
    that has failed. ``start``, ``rebuild`` and ``join`` are called by one thread.
    """

    def __init__(
        self,
        environment: TaskEnvironment,
        role: str,
        build: Callable[[TaskEnvironment], Runner],
        on_failure: Callable[[], None] = lambda: None,
    ) -> None:
        self.environment = environment
        self.role = role
        self.state = "UNASSIGNED"
        self.trace: str | None = None
        """Why the last runner failed: a sentence, and for an unexpected error its traceback below it."""
        self._build = build
        self._on_failure = on_failure
        self._earlier = Counts()
        self._runner = build(environment)
        self._thread = self._make_thread()

    @property
    def stats(self) -> Counts:
        """The totals of all runners. What was in flight when one ended was received again, or will be."""
        now = self._runner.stats
        return Counts(*(before + count for before, count in zip(self._earlier, now, strict=True)))

    @property
    def lag(self) -> int | None:
        """How many records wait for the task; ``None`` if that is unknown, as it is of one that has ended."""
        return self._runner.lag if self.state == "RUNNING" else None

    def start(self) -> None:
        """Start the thread."""
        self.state = "RUNNING"
        self._thread.start()

    def rebuild(self) -> None:
        """Replace a runner that has ended or failed by a new one; ``start`` starts it.

        Raises ``RuntimeError`` if the thread still runs, and whatever building a runner raises.
        """
        if self._thread.is_alive():
            raise RuntimeError(f"the {self.role} of {self.environment.id} still runs")
        environment = self.environment.renewed()
        runner = self._build(environment)
        self._earlier = self.stats._replace(received=self.stats.received - self.stats.in_flight, in_flight=0)
        self.environment, self._runner = environment, runner
        self._thread = self._make_thread()
        self.state, self.trace = "UNASSIGNED", None

    def interrupt(self) -> None:
        """Ask the runner to stop; return at once. Raises what the task's ``interrupt`` raises."""
        self._runner.interrupt()

    def join(self, timeout: float) -> bool:
        """Wait up to ``timeout`` seconds for the thread's end; return whether it has ended."""
        if self._thread.ident is not None:
            self._thread.join(max(0.0, timeout))
        return not self._thread.is_alive()

    def _make_thread(self) -> threading.Thread:
        name = f"{self.environment.id} {self.role}"
        return threading.Thread(target=self._main, args=[self._runner], name=name, daemon=True)

    def _main(self, runner: Runner) -> None:
        with about(connector=self.environment.connector, task=self.environment.task):
            try:
                runner.run()
                self.state = "STOPPED"
            except TaskFailedError as error:
                self._fail(str(error), error.unexpected)
            except BaseException as error:  # noqa: BLE001 - also SystemExit: a dead thread must not look alive
                self._fail(f"{type(error).__name__}: {error}", error)

    def _fail(self, sentence: str, unexpected: BaseException | None) -> None:
        self.trace = redaction.clean(describe_error(sentence, unexpected))
        self.state = "FAILED"
        extra = {"state": "FAILED", "role": self.role}
        log.error("the task failed: %s", sentence, exc_info=unexpected, extra=extra)
        self._on_failure()
