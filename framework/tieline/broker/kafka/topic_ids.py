"""Whether a topic was deleted and recreated: Kafka gives each topic a unique id."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future, wait
from typing import Any, NamedTuple

from confluent_kafka import KafkaError, KafkaException

AskTopics = Callable[[Collection[str]], Mapping[str, "Future[Any]"]]
"""Starts to describe topics; ``topic_id`` of each result is its id."""

_GONE = {KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError.UNKNOWN_TOPIC_ID}

_RETRY_AFTER = 0.1  # seconds between a refusal and the next question


class _Question(NamedTuple):
    since: float
    answers: Mapping[str, Future[Any]]


class TopicIds:
    """The id of each topic, and when the brokers last confirmed it. Used by one thread.

    An answer is valid from the moment of its question: everything fetched before is of that topic.
    """

    def __init__(self, ask: AskTopics) -> None:
        self._ask = ask
        self._question: _Question | None = None
        self._next_question = 0.0
        self._confirmed: dict[str, float] = {}
        self.known: dict[str, str] = {}
        """By the topic's name."""
        self.error: KafkaException | None = None
        """Why the last answer confirmed nothing; the fetcher takes it out."""
        self.changed: set[str] = set()
        """The topics that others of the same name have replaced; the fetcher takes them out."""

    def doubt(self, topics: Collection[str]) -> None:
        """Treat these as not confirmed, so that the next ``look`` asks for them."""
        for topic in topics:
            self._confirmed.pop(topic, None)

    def look(self, topics: Collection[str], max_age: float) -> bool:
        """Take the answers that have arrived, and ask again. Return whether all are recent.

        An answer is recent for ``max_age`` seconds. It is renewed after half of that time, so that a caller
        that looks all the time need not wait.
        """
        self._take()
        now = time.monotonic()
        if self._question is None and now >= self._next_question:
            old = [t for t in topics if now - self._confirmed.get(t, -1e9) > max_age / 2]
            if old:
                self._question = _Question(now, self._ask(old))
        return all(now - self._confirmed.get(topic, -1e9) <= max_age for topic in topics)

    def confirm(self, topics: Collection[str], max_age: float, timeout: float) -> bool:
        """Do the same, waiting at most ``timeout`` seconds for the answer."""
        deadline = time.monotonic() + timeout
        while not self.look(topics, max_age):
            left = deadline - time.monotonic()
            if left <= 0 or self._question is None:
                return False
            wait(self._question.answers.values(), left)
        return True

    def _take(self) -> None:
        if self._question is None or not all(answer.done() for answer in self._question.answers.values()):
            return
        since, answers = self._question
        self._question = None
        for topic, answer in answers.items():
            error = answer.exception()
            if error is None:
                topic_id = str(answer.result().topic_id)
                if self.known.setdefault(topic, topic_id) != topic_id:
                    self.known[topic] = topic_id
                    self.changed.add(topic)
                self._confirmed[topic] = since
            elif isinstance(error, KafkaException) and error.args[0].code() in _GONE:
                self._confirmed[topic] = since  # deleted, and nothing has replaced it yet
            elif isinstance(error, KafkaException):
                self.error = error
                self._next_question = time.monotonic() + _RETRY_AFTER
