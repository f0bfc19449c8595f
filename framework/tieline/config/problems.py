"""What is wrong in a configuration, gathered to be told together."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tieline.api import ConfigError, Mistake, PluginError


class Mistakes:
    """Collects what is wrong instead of stopping at the first."""

    def __init__(self, so_far: Iterable[Mistake] = ()) -> None:
        self.all: list[Mistake] = list(so_far)

    def add(self, mistake: Mistake) -> None:
        """Add one, if it is not told yet."""
        if mistake not in self.all:  # a worker's setting may be wrong for each of its connectors
            self.all.append(mistake)

    def extend(self, mistakes: Iterable[Mistake], where: str, prefix: str = "") -> None:
        """Add those that do not say themselves where they are."""
        for mistake in mistakes:
            self.add(Mistake(where, prefix + mistake.key, mistake.message))

    def tried(self, check: Any, where: str = "", key: str = "") -> Any:
        """The check's answer, or none after noting its mistakes."""
        try:
            return check()
        except ConfigError as error:
            for mistake in error.mistakes:
                self.add(mistake)
        except PluginError as error:
            self.add(Mistake(where, key, str(error)))
        return None

    def report(self) -> None:
        """Raises ``ConfigError`` with all of them, if there are any."""
        if self.all:
            raise ConfigError(self.all)
