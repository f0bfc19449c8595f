"""``filter`` drops records by their topic or key. They are counted as filtered; their offsets advance."""

from __future__ import annotations

import re
from collections.abc import Sequence

from tieline.api import AnyRecord, Config, Transform, setting


class FilterConfig(Config):
    """The expressions of the filter; at least one is required."""

    topic_regex: str | None = setting("topic.regex", None, doc="Drop records whose whole topic matches.")
    key_regex: str | None = setting("key.regex", None, doc="Drop records whose whole key, as text, matches.")

    def problems(self) -> list[tuple[str, str]]:
        """Return a problem if there is no expression, or one that does not compile."""
        expressions = [
            (k, v)
            for k, v in (("topic.regex", self.topic_regex), ("key.regex", self.key_regex))
            if v is not None
        ]
        problems = [] if expressions else [("topic.regex", "give topic.regex or key.regex")]
        for key, text in expressions:
            try:
                re.compile(text)
            except re.error as error:
                problems.append((key, f"not a regular expression: {error}"))
        return problems


class Filter(Transform[FilterConfig]):
    """Drops records that match either expression."""

    config_type = FilterConfig

    def __init__(self, config: FilterConfig) -> None:
        super().__init__(config)
        self._topic = None if config.topic_regex is None else re.compile(config.topic_regex)
        self._key = None if config.key_regex is None else re.compile(config.key_regex)

    def apply(self, batch: Sequence[AnyRecord]) -> Sequence[AnyRecord | None]:
        """Return ``None`` for each dropped record."""
        return [None if self._drops(record.topic, record.key) else record for record in batch]

    def _drops(self, topic: str, key: object) -> bool:
        if self._topic is not None and self._topic.fullmatch(topic):
            return True
        return self._key is not None and key is not None and self._key.fullmatch(str(key)) is not None
