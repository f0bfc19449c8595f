"""The promises that sources and sinks share, as tests."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar, NamedTuple

import pytest

from tieline.api import RetriableError, TielineError
from tieline.testing.connector_settings import ConnectorSettings
from tieline.testing.driven_task import DrivenTask, UnexpectedError
from tieline.testing.promises import NotTested
from tieline.testing.resources import left_since, process_state, resources, shared_state

Call = Callable[[], None]


class Outage(NamedTuple):
    """An outage of the external system in the middle of a run, with the calls that begin and end it."""

    begin: Call
    end: Call


class ConnectorContract(ConnectorSettings):
    """The base of ``SourceContract`` and ``SinkContract``: settings, lifecycle, resources.

    A test that lacks a fixture is skipped; the end of pytest's run lists these promises with the fixture
    that each needs.
    """

    soon: ClassVar[float] = 1.0
    """Seconds: how much longer than asked a call may take, on a machine that has other things to do."""
    patience: ClassVar[float] = 10.0
    """Seconds after which a call hangs, and an expected record or error will not come any more."""

    @pytest.fixture
    def break_it(self) -> Call | None:
        """``break_it()``: make the external system of ``settings`` unavailable, in the middle of a run.

        ``None``: the promises about outages in the middle of a run are not tested.
        """
        return None

    @pytest.fixture
    def heal_it(self) -> Call | None:
        """``heal_it()``: make it available again, with everything that it held. Goes with ``break_it``."""
        return None

    @pytest.fixture
    def run_outage(self, break_it: Call | None, heal_it: Call | None, not_tested: NotTested) -> Outage:
        """Return the outage of ``break_it`` and ``heal_it``; skip the test if one of them is ``None``."""
        if break_it is None or heal_it is None:
            not_tested("give the fixtures 'break_it' and 'heal_it'")
        return Outage(break_it, heal_it)

    @pytest.fixture
    def worker_settings(self) -> Mapping[str, str] | None:
        """Settings of a worker that is killed with this connector in it; ``{}`` is enough.

        The worker is a process of its own: the external system must be reachable from there. ``None``: what
        a kill of the process costs is not tested.
        """
        return None

    @pytest.fixture
    def work(self) -> Callable[[Any], None]:
        """``work(task)``: let a started task handle a few records. The source's and sink's kits give it."""
        raise NotImplementedError

    def test_a_task_that_never_started_can_be_interrupted_and_stopped(
        self, settings: Mapping[str, str]
    ) -> None:
        """The worker was asked to stop before ``start`` succeeded."""
        task = self._task(settings)
        task.interrupt()
        task.stop()
        task.end()

    def test_an_interrupt_after_stop_does_no_harm(
        self, settings: Mapping[str, str], work: Callable[[Any], None]
    ) -> None:
        """A task may end by itself while its worker is asked to stop."""
        with self._started(settings) as task:
            work(task)
        mark = resources()
        task.interrupt()
        left = left_since(mark, 3 * self.soon)  # waits only as long as something is left
        assert not left, f"an interrupt after stop opened {', '.join(left)}; nothing closes that"

    def test_a_start_in_an_outage_can_be_repeated(
        self, outage: Mapping[str, str] | None, not_tested: NotTested
    ) -> None:
        """It may succeed, or raise ``RetriableError`` each time; then the task is interrupted and stopped."""
        if outage is None:
            not_tested("no settings of an outage; give the fixture 'outage'")
        ended = []  # kept: what the garbage collector would close is not released by stop
        mark = resources()
        for _ in range(2):
            mark = resources()  # the first task may load what a library keeps for all
            task = self._task(outage)
            for _ in range(2):
                if not self._fails("start", task.start, outage):
                    break
            task.interrupt()
            task.stop()
            task.end()
            ended.append(task)
        left = left_since(mark, 3 * self.soon)  # waits only as long as something is left
        assert not left, (
            f"start failed twice, and stop left open: {', '.join(left)}. "
            "Release what a failed start has opened; stop is called also if start failed"
        )

    def test_a_task_that_could_not_start_starts_after_the_outage(
        self,
        settings: Mapping[str, str],
        work: Callable[[Any], None],
        run_outage: Outage,
    ) -> None:
        """The same task is started again, until ``start`` returns."""
        task = self._task(settings)
        try:
            run_outage.begin()
            failed = self._fails("start", task.start, settings)
            run_outage.end()
            deadline = time.monotonic() + self.patience
            while failed and time.monotonic() < deadline:
                time.sleep(min(failed.after or 0.0, self.soon) or self.soon / 10)
                failed = self._fails("start", task.start, settings)
            assert not failed, f"start still raises {self.patience:g} s after the outage: {failed}"
            self._opened(task)
            work(task)
        finally:
            self._end(task)

    def test_stop_releases_threads_and_files(
        self, settings: Mapping[str, str], work: Callable[[Any], None]
    ) -> None:
        """The first task may load what a library keeps for all; the second one leaves nothing more."""
        before = resources()
        ended = []  # kept: what the garbage collector would close is not released by stop
        mark = before
        for _ in range(2):
            mark = resources()
            with self._started(settings) as task:
                work(task)
            ended.append(task)
        left = left_since(mark, 3 * self.soon)  # waits only as long as something is left
        assert not left, f"stop left open: {', '.join(left)}. Close files and sockets, join threads in stop"
        alive = [t.name for t in resources().threads - before.threads if not t.daemon]
        assert not alive, f"stop left threads running that keep the process alive: {alive}. Join them in stop"

    def test_tasks_share_no_state(self, settings: Mapping[str, str], work: Callable[[Any], None]) -> None:
        """A worker runs several tasks of a connector in one process: a class attribute is common to all."""
        kinds = [self._connector, self._connector.task_type]
        before = shared_state(kinds)
        states = []
        with self._started(settings) as task:
            task.after_call = lambda: states.append(shared_state(kinds))
            work(task)
        states.append(shared_state(kinds))
        names = {name for state in (before, *states) for name in state}
        changed = sorted(n for n in names if any(state.get(n) != before.get(n) for state in states))
        assert not changed, (
            f"a task changed {', '.join(changed)}, which all tasks of the process share: "
            "set it in __init__, on self"
        )

    def test_a_task_changes_nothing_of_the_process(
        self, settings: Mapping[str, str], work: Callable[[Any], None]
    ) -> None:
        """Other connectors run in the same process: its environment, its working folder, its logging."""
        before = process_state()
        with self._started(settings) as task:
            work(task)
        after = process_state()
        changed = sorted(n for n in before.keys() | after.keys() if before.get(n) != after.get(n))
        assert not changed, (
            f"a task changed {', '.join(changed)}: that is common to all connectors of a worker. "
            "Give it to your own client or call instead"
        )

    def test_no_secret_is_logged_or_printed(
        self,
        settings: Mapping[str, str],
        work: Callable[[Any], None],
        caplog: pytest.LogCaptureFixture,
        capfd: pytest.CaptureFixture[str],
    ) -> None:
        """Not at any level: a log is read by more people than a secret."""
        secrets = self._secrets(settings)
        caplog.set_level(logging.DEBUG)
        with self._started(settings) as task:
            work(task)
        printed = capfd.readouterr()
        for key, text in secrets.items():
            assert text not in caplog.text, f"the log shows the secret {key}: never log the value of a secret"
            assert text not in printed.out + printed.err, f"the task prints the secret {key}"

    def _context(self) -> Any:
        raise NotImplementedError

    def _opened(self, task: DrivenTask) -> None:
        """What follows ``start``."""

    def _task(self, settings: Mapping[str, str], context: Any = None) -> DrivenTask:
        context = context or self._context()
        kind, config = self._connector.task_type, self._config(settings)
        return DrivenTask(lambda: kind(context, config), context, self.patience + self.soon)

    @contextmanager
    def _started(
        self, settings: Mapping[str, str], context: Any = None, interrupt: bool = True
    ) -> Iterator[DrivenTask]:
        task = self._task(settings, context)
        try:
            task.start()
            self._opened(task)
            yield task
        finally:
            self._end(task, interrupt)

    def _end(self, task: DrivenTask, interrupt: bool = True) -> None:
        task.context.stopping = True
        if interrupt or task.hung:
            task.interrupt(self.soon + 1.0)
        if not task.hung:
            task.stop()
            task.end()

    def _fails(
        self, name: str, call: Callable[[], object], settings: Mapping[str, str]
    ) -> RetriableError | None:
        """Make a call in an outage: the ``RetriableError`` that it raises, if it raises one.

        Any other error fails the test: it would stop the task.
        """
        try:
            call()
        except RetriableError as error:
            self._shows_no_secret(error, settings)
            return error
        except UnexpectedError as error:
            raise self._stops_in_an_outage(name, error.error) from error.error
        except TielineError as error:
            raise self._stops_in_an_outage(name, error) from error
        return None

    def _stops_in_an_outage(self, name: str, error: BaseException) -> AssertionError:
        return AssertionError(
            f"{name} raised {type(error).__name__} in an outage ({error}): the task would stop. "
            "Raise RetriableError, and the runtime waits and calls again"
        )

    def _shows_no_secret(self, error: Exception, settings: Mapping[str, str]) -> None:
        for key, text in self._secrets(settings).items():
            if text in f"{error} {error.__cause__}":
                pytest.fail(f"the message of {type(error).__name__} shows the secret {key}")
