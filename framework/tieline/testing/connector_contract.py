"""The promises that sources and sinks share, as tests."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, get_args

import pytest

from tieline.api import Config, RetriableError, Secret, SinkTask, SourceTask
from tieline.api.connector import Connector, connector_of
from tieline.testing.driven_task import DrivenTask
from tieline.testing.promises import NotTested
from tieline.testing.resources import left_since, resources, shared_state

Call = Callable[[], None]
_SECRET_NAME = re.compile(r"(password|passwd|secret|token|credentials?|api[._-]?key|private[._-]?key)$")


class ConnectorContract:
    """The base of ``SourceContract`` and ``SinkContract``: settings, lifecycle, resources.

    A test that lacks a fixture is skipped; the end of pytest's run lists these promises with the fixture
    that each needs.
    """

    connector: ClassVar[type[Any]]
    """The connector class, or the task class where the entry point names that."""
    soon: ClassVar[float] = 1.0
    """Seconds: how much longer than asked a call may take, on a machine that has other things to do."""
    patience: ClassVar[float] = 10.0
    """Seconds after which a call hangs, and an expected record or error will not come any more."""

    @pytest.fixture
    def settings(self) -> Mapping[str, str]:
        """The flat map of a working configuration, for an external system of this test's own. Required."""
        raise NotImplementedError("give the fixture 'settings': a flat map of a working configuration")

    @pytest.fixture
    def outage(self) -> Mapping[str, str] | None:
        """Settings of an external system that cannot be reached, such as an unused port.

        ``None``: the promises about an outage at the start are not tested.
        """
        return None

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

    @pytest.fixture(autouse=True)
    def not_tested(self, request: pytest.FixtureRequest) -> NotTested:
        """``not_tested(reason)``: skip the test, and list its promise at the end of the run."""
        return NotTested(request)

    def test_every_setting_is_documented_and_no_default_can_be_changed(self) -> None:
        """A default that is a list would be shared by all connectors of a worker."""
        for name, field in self._config_type.model_fields.items():
            assert field.description, f"{name} has no documentation"
            assert field.alias, f"{name} has no key; define it with setting()"
            assert not isinstance(field.default, (list, dict, set)), f"the default of {name} can be changed"

    def test_a_secret_is_declared_as_one(self) -> None:
        """``Secret`` keeps a value out of logs, messages and the REST interface."""
        for name, field in self._config_type.model_fields.items():
            key = field.alias or name
            if _SECRET_NAME.search(key.lower()) and field.annotation is str:
                pytest.fail(f"{key} looks like a secret and is a str: declare it as tieline.api.Secret")

    def test_the_settings_of_every_task_are_a_configuration(self, settings: Mapping[str, str]) -> None:
        """``task_configs`` returns flat maps, at most as many as asked for."""
        problems = list(self._connector.validate(self._config(settings)))
        assert problems == [], f"validate rejects the settings of this test: {problems}"
        for most in (1, 3):
            tasks = self._task_configs(settings, most)
            assert 0 < len(tasks) <= most, f"{len(tasks)} tasks, at most {most} were asked for"
            for task in tasks:
                self._config(task)

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
        task = self._task(outage)
        for _ in range(2):
            if not self._fails("start", task.start, outage):
                break
        task.interrupt()
        task.stop()
        task.end()

    def test_a_task_that_could_not_start_starts_after_the_outage(
        self,
        settings: Mapping[str, str],
        work: Callable[[Any], None],
        break_it: Call | None,
        heal_it: Call | None,
        not_tested: NotTested,
    ) -> None:
        """The same task is started again, until ``start`` returns."""
        if break_it is None or heal_it is None:
            not_tested("give the fixtures 'break_it' and 'heal_it'")
        task = self._task(settings)
        try:
            break_it()
            failed = self._fails("start", task.start, settings)
            heal_it()
            if failed:
                task.start()
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

    @property
    def _connector(self) -> type[Any]:
        kind = self.connector
        if issubclass(kind, (SourceTask, SinkTask)):
            return connector_of(kind)
        assert issubclass(kind, Connector), f"connector = {kind.__name__} is neither a connector nor a task"
        return kind

    @property
    def _config_type(self) -> type[Config]:
        found: type[Config] = self._connector.config_type
        return found

    def _config(self, settings: Mapping[str, str]) -> Config:
        return self._config_type.parse(settings)

    def _task_configs(self, settings: Mapping[str, str], most: int) -> Sequence[Mapping[str, str]]:
        """Return the settings of each task, as the connector divides its work."""
        connector = self._connector(_ConnectorContext(settings), self._config(settings))
        connector.start()
        tasks: Sequence[Mapping[str, str]] = connector.task_configs(most)
        connector.stop()
        return tasks

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
        except AssertionError:
            raise
        except Exception as error:
            raise AssertionError(
                f"{name} raised {type(error).__name__} in an outage ({error}): the task would stop. "
                "Raise RetriableError, and the runtime waits and calls again"
            ) from error
        return None

    def _shows_no_secret(self, error: Exception, settings: Mapping[str, str]) -> None:
        for name, field in self._config_type.model_fields.items():
            key = field.alias or name
            text = settings.get(key, "")
            if isinstance(field.default, Secret):
                text = text or field.default.get_secret_value()
            is_secret = Secret in (field.annotation, *get_args(field.annotation))
            if is_secret and len(text) > 3 and text in f"{error} {error.__cause__}":
                pytest.fail(f"the message of {type(error).__name__} shows the secret {key}")


class _ConnectorContext:
    """A ``ConnectorContext`` for a connector that asks nothing of it."""

    name = "test"

    def __init__(self, settings: Mapping[str, str]) -> None:
        self.settings = settings

    def request_task_reconfiguration(self) -> None:
        """Nothing to do."""

    def raise_error(self, error: Exception) -> None:
        """The test ends."""
        raise error
