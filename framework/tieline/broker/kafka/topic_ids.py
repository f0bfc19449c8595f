"""Whether a topic is still the one that it was: Kafka gives each topic an id, and no other ever the same."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future, wait
from typing import Any, NamedTuple

from confluent_kafka import KafkaError, KafkaException

AskTopics = Callable[[Collection[str]], Mapping[str, "Future[Any]"]]
"""Begins to describe topics: ``topic_id`` of each result is its id."""

_GONE = {KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError.UNKNOWN_TOPIC_ID}


_REST = 0.1  # seconds between a refusal and the next question


class _Asked(NamedTuple):
    since: float
    answers: Mapping[str, Future[Any]]


class TopicIds:
    """The id of each topic, and when the brokers last confirmed it. Used by one thread.

    An answer holds from the moment in which it was asked for: whatever was fetched before is of that topic.
    """

    def __init__(self, ask: AskTopics) -> None:
        self._ask = ask
        self._asked: _Asked | None = None
        self._next_question = 0.0
        self._confirmed: dict[str, float] = {}
        self.known: dict[str, str] = {}
        """By the topic's name."""
        self.error: KafkaException | None = None
        """Why the last answer confirmed nothing; the reader takes it out."""
        self.changed: set[str] = set()
        """The topics that another one of the same name has replaced; the reader takes them out."""

    def doubt(self, topics: Collection[str]) -> None:
        """Ask again for these, however short ago they were confirmed."""
        for topic in topics:
            self._confirmed.pop(topic, None)

    def look(self, topics: Collection[str], max_age: float) -> bool:
        """Take the answers that are there, and ask again. True: none is older than ``max_age`` seconds.

        It asks when half of that time is over, so that whoever looks all the time need not wait.
        """
        self._take()
        now = time.monotonic()
        if self._asked is None and now >= self._next_question:
            old = [t for t in topics if now - self._confirmed.get(t, -1e9) > max_age / 2]
            if old:
                self._asked = _Asked(now, self._ask(old))
        return all(now - self._confirmed.get(topic, -1e9) <= max_age for topic in topics)

    def confirm(self, topics: Collection[str], max_age: float, timeout: float) -> bool:
        """As ``look``, waiting at most ``timeout`` seconds for the answer."""
        deadline = time.monotonic() + timeout
        while not self.look(topics, max_age):
            left = deadline - time.monotonic()
            if left <= 0 or self._asked is None:
                return False
            wait(self._asked.answers.values(), left)
        return True

    def _take(self) -> None:
        if self._asked is None or not all(answer.done() for answer in self._asked.answers.values()):
            return
        since, answers = self._asked
        self._asked = None
        for topic, answer in answers.items():
            error = answer.exception()
            if error is None:
                found = str(answer.result().topic_id)
                if self.known.setdefault(topic, found) != found:
                    self.known[topic] = found
                    self.changed.add(topic)
                self._confirmed[topic] = since
            elif isinstance(error, KafkaException) and error.args[0].code() in _GONE:
                self._confirmed[topic] = since  # deleted, and nothing has replaced it yet
            elif isinstance(error, KafkaException):
                self.error = error
                self._next_question = time.monotonic() + _REST
