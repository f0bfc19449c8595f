"""``regex_router`` changes a topic that matches as a whole, as Kafka Connect's RegexRouter."""

from __future__ import annotations

import re
from collections.abc import Sequence

from tieline.api import AnyRecord, Config, Transform, setting


class RegexRouterConfig(Config):
    """The settings of Kafka Connect's RegexRouter."""

    regex: str = setting("regex", doc="A regular expression that must match the whole topic.")
    replacement: str = setting("replacement", doc="The new topic; $1 is the first group.")

    def problems(self) -> list[tuple[str, str]]:
        """Return a problem if the expression does not compile, or lacks a group."""
        try:
            pattern = re.compile(self.regex)
        except re.error as error:
            return [("regex", f"not a regular expression: {error}")]
        missing = [n for n in re.findall(r"\$(\d+)", self.replacement) if int(n) > pattern.groups]
        return [("replacement", f"regex has no group {n}") for n in missing]


class RegexRouter(Transform[RegexRouterConfig]):
    """Changes topics; remembers the result for each topic."""

    config_type = RegexRouterConfig

    def __init__(self, config: RegexRouterConfig) -> None:
        super().__init__(config)
        self._pattern = re.compile(config.regex)
        literal = config.replacement.replace("\\", r"\\")
        self._replacement = re.sub(r"\$(\d+)", r"\\g<\1>", literal)
        self._routes: dict[str, str] = {}

    def apply(self, batch: Sequence[AnyRecord]) -> Sequence[AnyRecord | None]:
        """Return the records, with a new topic for those that match."""
        out: list[AnyRecord | None] = []
        for record in batch:
            topic = record.topic
            new = self._routes.get(topic)
            if new is None:
                match = self._pattern.fullmatch(topic)
                new = self._routes[topic] = match.expand(self._replacement) if match else topic
            out.append(record if new == topic else record._replace(topic=new))
        return out
