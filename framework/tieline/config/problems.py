"""What is wrong in a configuration, gathered to be told together."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tieline.api import ConfigError, ConfigProblem, PluginError


class Problems:
    """Collects what is wrong instead of stopping at the first."""

    def __init__(self, so_far: Iterable[ConfigProblem] = ()) -> None:
        self.all: list[ConfigProblem] = list(so_far)

    def add(self, problem: ConfigProblem) -> None:
        """Add one, if it is not told yet."""
        if problem not in self.all:  # a worker's setting may be wrong for each of its connectors
            self.all.append(problem)

    def extend(self, problems: Iterable[ConfigProblem], where: str, prefix: str = "") -> None:
        """Add those that do not say themselves where they are."""
        for problem in problems:
            self.add(ConfigProblem(where, prefix + problem.key, problem.message))

    def tried(self, check: Any, where: str = "", key: str = "") -> Any:
        """The check's answer, or none after noting its problems."""
        try:
            return check()
        except ConfigError as error:
            for problem in error.problems:
                self.add(problem)
        except PluginError as error:
            self.add(ConfigProblem(where, key, str(error)))
        return None

    def report(self) -> None:
        """Raises ``ConfigError`` with all of them, if there are any."""
        if self.all:
            raise ConfigError(self.all)
