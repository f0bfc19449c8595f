"""All command sinks of a worker."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tieline.api.pages import PageContext, PageError
from tieline_connectors.command.config import CommandSinkConfig
from tieline_connectors.command.pages.lives import CommandLife
from tieline_connectors.command.pages.plant import CommandPlant


class Plants:
    """The command sinks that read a topic by its name. Any thread may call it."""

    def __init__(self, context: PageContext) -> None:
        self._all: Sequence[CommandPlant] = [
            CommandPlant(context, each.name, CommandSinkConfig.parse(each.settings), each.topics[0])
            for each in context.connectors
            if each.plugin == "command" and each.kind == "sink" and each.topics
        ]

    def __iter__(self) -> Iterator[CommandPlant]:
        return iter(self._all)

    def __len__(self) -> int:
        return len(self._all)

    @property
    def topics(self) -> Sequence[str]:
        """The topics of their commands and results."""
        return sorted({each.topic for each in self._all} | {p.config.results_topic for p in self._all})

    def named(self, name: str) -> CommandPlant:
        """Return the sink of this name. Raises ``PageError``."""
        plant = next((plant for plant in self._all if plant.name == name), None)
        if plant is None:
            raise PageError(404, f"No command sink of this worker is called {name!r}")
        return plant

    def find(self, text: str, name: str) -> tuple[CommandPlant, str]:
        """Return the sink and the point of ``<platform>/<path>``, or of a path alone."""
        if name:
            return self.named(name), text
        for plant in self._all:
            if text.startswith(f"{plant.platform}/"):
                return plant, text[len(plant.platform) + 1 :]
        return self._all[0], text

    def platform_of(self, life: CommandLife) -> str | None:
        """Return the platform of a command. If only its results are known, their topic says it."""
        if life.command.get("platform"):
            return str(life.command["platform"])
        return next(
            (
                each.platform
                for each in self._all
                if (life.topic and each.topic == life.topic)
                or (not life.topic and each.config.results_topic == life.results_topic)
            ),
            None,
        )

    def of_life(self, life: CommandLife) -> CommandPlant | None:
        """Return the sink that has executed a command; never another one, whose plant it would change."""
        platform = life.command.get("platform")
        return next(
            (each for each in self._all if each.topic == life.topic and platform in (None, each.platform)),
            None,
        )
