"""Crashes by list, not by luck: a worker dies inside this process, at a named step of a record's journey.

    point = CrashPoint(Step.PRODUCE, "after")               # the broker has it, the worker does not know
    with Life(plan, open_broker(plan), point) as first:
        assert first.run(until=everything_arrived)          # true: it crashed
        first.leave(folder)                                 # what a killed process leaves on the disk
        plan = checked("test", {"data.dir": str(folder)}, connectors)
        with Life(plan, open_broker(plan)) as second:       # new objects, from the disk
            assert not second.run(until=everything_arrived)
    …                                                       # now count what has arrived

A killed process does not flush. **After the crash every call to the broker, a spool, a task, a converter
or a transform is refused**, by another ``Crash``, so that no ``finally`` commits, saves or closes anything.
What the broker was given before still arrives, as with a kill a moment later.

This cannot show what a task does by itself between two calls of the runtime: a thread of its own, a buffered
file that Python flushes when it is garbage-collected. ``tieline.testing.worker_process`` kills a real
process.
"""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, cast

from typing_extensions import Self

from tieline.broker.port import Broker
from tieline.config.plan import ConnectorPlan, Plan, SinkPlan, SourcePlan
from tieline.config.settings import Timing
from tieline.runtime.spool.spool import Spool
from tieline.runtime.task.environment import TaskEnvironment
from tieline.runtime.worker.connector import RunningConnector
from tieline.runtime.worker.factory import TaskFactory
from tieline.runtime.worker.task_thread import TaskThread
from tieline.testing.crash.points import Crash, CrashPoint, Guarded, GuardedBroker, Process, Step

__all__ = ["Crash", "CrashPoint", "Life", "Step"]


class Life:
    """One life of a worker: its connectors run as the worker runs them, until it crashes or all is done.

    ``plan``: created for each life, as a new process creates it. ``broker``: opened for this life and closed
    with it. ``timing``: the plan's own by default. A context manager: leave that of a crashed life only when
    the next one has ended, because closing its files and sockets may do what a kill does not.
    """

    def __init__(
        self, plan: Plan, broker: Broker, crash: CrashPoint | None = None, *, timing: Timing | None = None
    ) -> None:
        self._process = Process(crash)
        self._plan = plan
        self._broker = broker
        self._process.close_later(broker.close)
        guarded = cast(Broker, GuardedBroker(self._process, broker))
        timing, data_dir = timing or plan.worker.timing, plan.worker.data_dir
        self._factory = _GuardedFactory(self._process, guarded, timing, data_dir)
        self._connectors = [
            RunningConnector(_guarded(planned, self._process), self._factory) for planned in plan.connectors
        ]

    @property
    def done(self) -> Counter[Step]:
        """How often each step had its effect."""
        return self._process.done

    def ledger(self) -> dict[str, dict[str, Any]]:
        """Return each connector's ledger by its name."""
        return {connector.name: connector.ledger() for connector in self._connectors}

    def run(self, until: Callable[[], bool], timeout: float = 90.0) -> bool:
        """Run until the crash and return true, or until ``until()`` and a clean stop and return false.

        Raises ``AssertionError`` if a task fails by itself, or after ``timeout`` seconds.
        """
        try:
            self._start()
            self._watch(until, timeout)
        except Crash:
            pass
        finally:
            self._stop()
        if self._process.dead.is_set():
            self._process.settle()
            return True
        for connector in self._connectors:
            connector.close()
        self._factory.close()
        self._broker.close()
        self._process.remains.pop_all()  # all of it was closed already
        return False

    def leave(self, folder: Path) -> None:
        """Copy ``data.dir`` as the crash left it: no file is closed, no log is checkpointed."""
        # These hold no data: a lock, a bell (a named pipe), reserved space.
        ignore = shutil.ignore_patterns("*.lock", "*.bell", "*.reserve")
        self._plan.worker.data_dir.mkdir(parents=True, exist_ok=True)  # with Kafka alone it may not exist
        shutil.copytree(self._plan.worker.data_dir, folder, ignore=ignore)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.dead.set()
        self._process.remains.close()

    @property
    def _threads(self) -> list[TaskThread]:
        return [thread for connector in self._connectors for thread in connector.threads]

    def _start(self) -> None:
        for connector in self._connectors:
            connector.prepare()
        left = self._factory.existing_spools()
        for connector in self._connectors:
            left = connector.adopt(left)
        for connector in self._connectors:
            connector.start()

    def _watch(self, until: Callable[[], bool], timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while not self._process.dead.wait(0.002) and not until():
            failed = [thread.trace for thread in self._threads if thread.state in ("FAILED", "RESTARTING")]
            if failed and not self._process.dead.is_set():
                raise AssertionError(f"a task failed, and not by the crash: {failed}")
            if time.monotonic() >= deadline:
                raise AssertionError(f"neither a crash nor the end within {timeout} s: {self.ledger()}")

    def _stop(self) -> None:
        """Stop every task; the threads of a dead process are only woken."""
        for thread in self._threads:
            with suppress(Crash):
                thread.interrupt()
        for thread in self._threads:
            if not thread.join(20):
                raise AssertionError(f"{thread.environment.id}: the {thread.role} did not end")


class _GuardedFactory(TaskFactory):
    """Guards spools, too."""

    def __init__(self, process: Process, broker: Broker, timing: Timing, data_dir: Path) -> None:
        super().__init__(broker, timing, data_dir)
        self._process = process

    def open_spool(self, path: Path, plan: SourcePlan, environment: TaskEnvironment) -> Spool:
        spool = super().open_spool(path, plan, environment)
        self._process.close_later(spool.close)
        return cast(Spool, Guarded(self._process, spool, {"append": Step.SPOOL, "save": Step.SAVE}))


def _guarded(plan: ConnectorPlan, process: Process) -> ConnectorPlan:
    """Return the same connector with guarded tasks, converters and transforms."""
    transformed = {"apply": Step.TRANSFORM_IN if isinstance(plan, SinkPlan) else Step.TRANSFORM_OUT}
    converted = {"serialize": Step.SERIALIZE, "deserialize": Step.DESERIALIZE}

    steps = {"put": Step.PUT, "pre_commit": Step.FLUSH, "poll": Step.POLL, "commit": Step.COMMIT_SOURCE}
    connector: Any = plan.connector

    def build(kind: Callable[..., Any], steps: Mapping[str, Step]) -> Any:
        return lambda *args, **options: process.guard_methods(kind(*args, **options), steps)

    return replace(
        plan,
        connector=_guarded_type(
            connector, process, {}, task_type=_guarded_type(connector.task_type, process, steps)
        ),
        key=replace(plan.key, type=build(plan.key.type, {})),
        value=replace(plan.value, type=build(plan.value.type, converted)),
        transforms=[replace(planned, type=build(planned.type, transformed)) for planned in plan.transforms],
    )


def _guarded_type(kind: Any, process: Process, steps: Mapping[str, Step], **attributes: Any) -> Any:
    """Return a subclass whose instances are guarded, and stopped with the process."""

    def init(self: Any, *args: Any, **options: Any) -> None:
        kind.__init__(self, *args, **options)
        process.close_later(self.stop)
        process.guard_methods(self, steps)

    return type(kind.__name__, (kind,), {"__init__": init, **attributes})
