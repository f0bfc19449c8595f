"""The thread that runs a task of a connector; it outlives the runners that are built for it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from typing import Any

from tieline.logs import about, redaction
from tieline.runtime.errors.failure_table import restart_helps
from tieline.runtime.errors.retry_state import TaskFailedError
from tieline.runtime.errors.traces import describe_error, split_trace
from tieline.runtime.task.environment import TaskEnvironment
from tieline.runtime.task.ledger import Counts
from tieline.runtime.task.totals import PartitionView
from tieline.runtime.worker.restart_state import RestartState
from tieline.runtime.worker.runner_protocol import Runner
from tieline.runtime.worker.states import State

log = logging.getLogger(__name__)


class TaskThread:
    """Runs one runner at a time, in a thread of its own, and reports how the last one ended.

    The first runner is built at once, which may raise. ``on_end`` is called at the end of each runner by its
    thread, after the state has changed. ``start``, ``rebuild`` and ``join`` are called by one thread.
    """

    def __init__(
        self,
        environment: TaskEnvironment,
        role: str,
        build: Callable[[TaskEnvironment], Runner],
        restarts: RestartState,
        on_end: Callable[[TaskThread], None] = lambda thread: None,
    ) -> None:
        self.environment = environment
        self.role = role
        self.restarts = restarts
        self.state: State = "UNASSIGNED"
        self.trace: str | None = None
        """Why the last runner failed: a sentence, and for an unexpected error its traceback below it."""
        self._build = build
        self._on_end = on_end
        self._earlier = Counts()
        self._totals_before: Mapping[Any, PartitionView] = {}
        """Those of the runner before, until the present one has its own."""
        self._runner = build(environment)
        self._thread = self._make_thread()

    @property
    def stats(self) -> Counts:
        """The totals of all runners. What was in flight when one ended was received again, or will be."""
        return self._earlier.plus(self._runner.stats)

    @property
    def lag(self) -> int | None:
        """How many records wait for the task; ``None`` if that is unknown, as it is of one that has ended."""
        return self._runner.lag if self.state == "RUNNING" else None

    @property
    def lag_seconds(self) -> float | None:
        """How many seconds the task is behind; ``None`` if that is unknown, as of one that has ended."""
        return self._runner.lag_seconds if self.state == "RUNNING" else None

    @property
    def totals(self) -> Mapping[Any, PartitionView]:
        """What the records of each partition became since the count began; see ``Runner.totals``."""
        return self._runner.totals or self._totals_before

    @property
    def has_ended(self) -> bool:
        """Whether no runner works: it has ended, has failed, or was not started."""
        return self.state != "RUNNING"

    def describe(self) -> dict[str, Any]:
        """Return state, restarts, the last records, and after a failure its cause. Any thread may call it."""
        activity = self.environment.activity
        out: dict[str, Any] = {
            "task": self.environment.task,
            "role": self.role,
            "state": self.state,
            **self.restarts.stats(self._last_record),
            "last_received_ms": activity.received_ms,
            "last_delivered_ms": activity.delivered_ms,
            "waiting_since_ms": activity.waiting_since_ms,
        }
        if self.role == "sink":
            out["partitions"] = activity.partitions
        trace = self.trace
        return out if trace is None else {**out, "cause": split_trace(trace)[0]}

    def start(self) -> None:
        """Start the thread."""
        self.restarts.begin()
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
        self._earlier, self._totals_before = self.stats.settled, self.totals
        self.environment, self._runner = environment, runner
        self._thread = self._make_thread()
        self.state, self.trace = "UNASSIGNED", None

    def fail(self, error: Exception) -> None:
        """Note that a new runner could not be built or started."""
        self._fail(f"START: {type(error).__name__}: {error}", error, restart_helps(error))
        self._on_end(self)

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
                self._fail(str(error), error.unexpected, error.restart_helps)
            except BaseException as error:  # noqa: BLE001 - also SystemExit: a dead thread must not look alive
                self._fail(f"{type(error).__name__}: {error}", error, restart_helps(error))
            self._on_end(self)

    @property
    def _last_record(self) -> float | None:
        """When the role's last record was handled; a receiver delivers none."""
        activity = self.environment.activity
        return activity.received if self.role == "receiver" else activity.delivered

    def _fail(self, sentence: str, unexpected: BaseException | None, may_restart: bool) -> None:
        self.trace = redaction.clean(describe_error(sentence, unexpected))
        is_stopping = self.environment.stop.is_set()  # a task that fails while it stops has stopped
        state = self.restarts.fail(may_restart and not is_stopping, self._last_record)
        extra = {"state": state, "role": self.role, **self.restarts.stats(self._last_record)}
        log.error("the task failed: %s", sentence, exc_info=unexpected, extra=extra)
        self.state = state
