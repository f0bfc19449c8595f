"""The problems of a configuration, collected to be reported together."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from tieline.api import ConfigError, ConfigProblem, PluginError

T = TypeVar("T")


class Problems:
    """Collects problems instead of stopping at the first."""

    def __init__(self, so_far: Iterable[ConfigProblem] = ()) -> None:
        self.all: list[ConfigProblem] = list(so_far)

    def add(self, problem: ConfigProblem) -> None:
        """Add a problem, unless it is known already."""
        if problem not in self.all:  # a worker's setting may be wrong for each of its connectors
            self.all.append(problem)

    def extend(self, problems: Iterable[ConfigProblem], where: str, prefix: str = "") -> None:
        """Add problems, each with this place and with ``prefix`` before its key."""
        for problem in problems:
            self.add(ConfigProblem(where, prefix + problem.key, problem.message))

    def collect(self, check: Callable[[], T], where: str = "", key: str = "") -> T | None:
        """Return the check's result; if it raises, add its problems and return ``None``."""
        try:
            return check()
        except ConfigError as error:
            for problem in error.problems:
                self.add(problem)
        except PluginError as error:
            self.add(ConfigProblem(where, key, str(error)))
        return None

    def report(self) -> None:
        """Raise ``ConfigError`` with all of them, if there are any."""
        if self.all:
            raise ConfigError(self.all)
