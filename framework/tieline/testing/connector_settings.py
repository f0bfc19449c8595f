"""The promises of a connector about its settings, as tests."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, get_args

import pytest

from tieline.api import Config, Secret, SinkTask, SourceTask
from tieline.api.connector import Connector, connector_of
from tieline.testing.promises import NotTested

_SECRET_NAME = re.compile(
    r"((password|passwd|passphrase|pwd|secret|token|credentials?|(api|access|private)[._-]?key)|(^|[._-])pass)$"
)


class ConnectorSettings:
    """Settings, secrets, and the division of work into tasks."""

    connector: ClassVar[type[Any]]
    """The connector class, or the task class where the entry point names that."""

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
            if _SECRET_NAME.search(key.lower()) and str in (field.annotation, *get_args(field.annotation)):
                pytest.fail(f"{key} looks like a secret and is a str: declare it as tieline.api.Secret")

    def test_the_settings_of_every_task_are_a_configuration(self, settings: Mapping[str, str]) -> None:
        """``task_configs`` returns flat maps of text, at most as many as asked for."""
        problems = list(self._connector.validate(self._config(settings)))
        assert problems == [], f"validate rejects the settings of this test: {problems}"
        for most in (1, 3):
            tasks = self._task_configs(settings, most)
            assert 0 < len(tasks) <= most, f"{len(tasks)} tasks, at most {most} were asked for"
            for task in tasks:
                for key, value in task.items():
                    assert isinstance(value, str), (
                        f"task_configs returned {key} = {value!r}: settings are a flat map of text"
                    )
                self._config(task)

    def test_settings_are_checked_without_the_external_system(
        self, outage: Mapping[str, str] | None, not_tested: NotTested
    ) -> None:
        """``validate`` returns problems; it raises no error, also in an outage."""
        if outage is None:
            not_tested("no settings of an outage; give the fixture 'outage'")
        try:
            self._connector.validate(self._config(outage))
        except Exception as error:
            raise AssertionError(
                f"validate raised {type(error).__name__} in an outage ({error}): nothing of the worker would "
                "start. Return a list of (key, problem and fix); leave the external system to start"
            ) from error

    @property
    def _connector(self) -> type[Any]:
        kind = self.connector
        if issubclass(kind, (SourceTask, SinkTask)):
            return connector_of(kind)
        assert issubclass(kind, Connector), f"connector = {kind.__name__} is neither a connector nor a task"
        return kind

    @property
    def _config_type(self) -> type[Config]:
        config_type: type[Config] = self._connector.config_type
        return config_type

    def _config(self, settings: Mapping[str, str]) -> Config:
        return self._config_type.parse(settings)

    def _task_configs(self, settings: Mapping[str, str], most: int) -> Sequence[Mapping[str, str]]:
        """Return the settings of each task, as the connector divides its work."""
        connector = self._connector(_ConnectorContext(settings), self._config(settings))
        connector.start()
        tasks: Sequence[Mapping[str, str]] = connector.task_configs(most)
        connector.stop()
        return tasks

    def _secrets(self, settings: Mapping[str, str]) -> Mapping[str, str]:
        """Return the text of each secret that the settings contain, by its key."""
        secrets: dict[str, str] = {}
        for name, field in self._config_type.model_fields.items():
            key = field.alias or name
            text = settings.get(key, "")
            if isinstance(field.default, Secret):
                text = text or field.default.get_secret_value()
            if Secret in (field.annotation, *get_args(field.annotation)) and len(text) > 3:
                secrets[key] = text
        return secrets


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
