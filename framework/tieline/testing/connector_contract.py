"""The part of the contract that sources and sinks share; see ``tieline.testing.contract``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import pytest

from tieline.api import Config, SinkConnector, SourceConnector


class ConnectorContract:
    """What sources and sinks have in common; ``SourceContract``, ``SinkContract``."""

    connector: ClassVar[type[SourceConnector[Any] | SinkConnector[Any]]]
    soon: ClassVar[float] = 1.0
    """Seconds: how much longer than asked a call may take, on a machine that has other things to do."""

    @pytest.fixture
    def settings(self) -> Mapping[str, str]:
        """The connector's own settings: a working configuration, on an outside of this test's own."""
        raise NotImplementedError("give the fixture 'settings'")

    @pytest.fixture
    def outage(self) -> Mapping[str, str] | None:
        """Settings of an outside that cannot be reached; none: not tested."""
        return None

    def test_every_setting_is_documented_and_no_default_can_be_changed(self) -> None:
        """A default that is a list would be shared by all connectors of a worker."""
        for name, field in self.connector.config_type.model_fields.items():
            assert field.description, f"{name} has no documentation"
            assert field.alias, f"{name} has no key; define it with setting()"
            assert not isinstance(field.default, (list, dict, set)), f"the default of {name} can be changed"

    def test_the_settings_of_every_task_are_a_configuration(self, settings: Mapping[str, str]) -> None:
        """``task_configs`` gives flat maps, at most as many as asked for."""
        config = self._config(settings)
        assert list(self.connector.validate(config)) == []
        connector = self.connector(_ConnectorContext(settings), config)
        connector.start()
        for most in (1, 3):
            tasks = connector.task_configs(most)
            assert 0 < len(tasks) <= most, f"{len(tasks)} tasks, {most} were asked for"
            for task in tasks:
                self._config(task)
        connector.stop()

    def _config(self, settings: Mapping[str, str]) -> Config:
        return self.connector.config_type.parse(settings)


class _ConnectorContext:
    """A ``ConnectorContext`` of which nothing is asked."""

    name = "test"

    def __init__(self, settings: Mapping[str, str]) -> None:
        self.settings = settings

    def request_task_reconfiguration(self) -> None:
        """Nothing to do."""

    def raise_error(self, error: Exception) -> None:
        """The test ends."""
        raise error
