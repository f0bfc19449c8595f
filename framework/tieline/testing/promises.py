"""What the contract kit could not test, printed at the end of pytest's run."""

from __future__ import annotations

from typing import Any, NoReturn

import pytest

_NAME = "tieline-contract-kit"


class Untested:
    """A plugin of pytest that lists every promise of a run that was not tested, and why."""

    def __init__(self, config: pytest.Config) -> None:
        self.reasons: dict[tuple[str, str], str] = {}
        self._seen: set[type] = set()
        self._output: dict[str, Any] | None = getattr(config, "workeroutput", None)
        """What a worker of pytest-xdist hands over to the process that prints."""

    def add_class(self, contract: type) -> None:
        """Note which tests a class has switched off."""
        if contract in self._seen:
            return
        self._seen.add(contract)
        for name in dir(contract):
            if name.startswith("test_") and getattr(contract, name) is None:
                self.reasons[contract.__name__, name] = f"switched off in {contract.__name__}"

    @pytest.hookimpl
    def pytest_sessionfinish(self) -> None:
        """In a worker of pytest-xdist, hand the list over."""
        if self._output is not None:
            self._output[_NAME] = [[*promise, reason] for promise, reason in self.reasons.items()]

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Take the list of a worker that has ended; one that has crashed has none."""
        for owner, test, reason in getattr(node, "workeroutput", {}).get(_NAME, ()):
            self.reasons[owner, test] = reason

    @pytest.hookimpl
    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Print the list, if there is one."""
        if not self.reasons:
            return
        count = len(self.reasons)
        terminalreporter.section("contract kit")
        terminalreporter.write_line(f"{count} promise{'s' if count > 1 else ''} not tested:")
        for (owner, test), reason in sorted(self.reasons.items()):
            terminalreporter.write_line(f"  {owner}: {_sentence(test)}: {reason}")


def untested(config: pytest.Config) -> Untested:
    """Return the list of this process, creating it for the first that asks."""
    plugin = config.pluginmanager.get_plugin(_NAME)
    if plugin is None:
        plugin = Untested(config)
        config.pluginmanager.register(plugin, _NAME)
    assert isinstance(plugin, Untested)
    return plugin


class NotTested:
    """Skips one test, and puts it on the list."""

    def __init__(self, request: pytest.FixtureRequest) -> None:
        self._owner = request.cls.__name__ if request.cls else ""
        self._test = request.node.originalname
        self._list = untested(request.config)
        if request.cls:
            self._list.add_class(request.cls)

    def note(self, reason: str) -> None:
        """Put this promise on the list, and continue."""
        self._list.reasons[self._owner, self._test] = reason

    def __call__(self, reason: str) -> NoReturn:
        """Skip this test because of ``reason``, which names what would enable it."""
        self.note(reason)
        pytest.skip(reason)


def _sentence(test: str) -> str:
    return test.removeprefix("test_").replace("_", " ")
