"""The topics of a subscription by pattern. librdkafka's regular expressions differ from Python's."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Collection
from concurrent.futures import Future

from tieline.broker.internal import matches

ListTopics = Callable[[], "Future[Collection[str]]"]
"""Starts to ask the brokers for the names of all topics, without waiting."""


class TopicMatcher:
    """Asks for the names of all topics every ``refresh`` seconds, and matches them. Used by one thread."""

    def __init__(
        self,
        topics: Collection[str],
        pattern: re.Pattern[str] | None,
        list_topics: ListTopics,
        internal: Collection[str],
        refresh: float,
    ) -> None:
        """``topics`` always match. ``internal``: the worker's own, which a pattern must name exactly."""
        self.topics = frozenset(topics)
        self._pattern = pattern
        self._list_topics = list_topics
        self._internal = internal
        self._refresh = refresh
        self._names: Future[Collection[str]] | None = None
        self._next_question = 0.0

    @property
    def waiting(self) -> bool:
        """Whether the names are on their way."""
        return self._names is not None

    def poll(self) -> frozenset[str] | None:
        """Return the topics that match now, or ``None`` if there is no new answer. Never waits."""
        if self._pattern is None:
            return None
        now = time.monotonic()
        if self._names is None and now >= self._next_question:
            self._names = self._list_topics()
        if self._names is None or not self._names.done():
            return None
        answer, self._names = self._names, None
        self._next_question = now + self._refresh
        if answer.exception() is not None:
            return None
        names, pattern = answer.result(), self._pattern
        return self.topics | {name for name in names if matches(pattern, name, names, self._internal)}
