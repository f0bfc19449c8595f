"""Follows the topics of commands and of results, in a thread of its own."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from tieline.api import TielineError
from tieline.api.background import BackgroundThread
from tieline.api.commands import TopicClient, TopicFollower
from tieline.api.pages import PageContext
from tieline_connectors.command.pages.lives import CommandBook

log = logging.getLogger(__name__)

_BACK_DAYS = 7
_POLL = 0.25
_RETRY = 5.0


class CommandFollower(BackgroundThread):
    """Keeps a ``CommandBook`` current, in a thread from ``start`` to ``stop``; ``book`` gives access."""

    def __init__(
        self, context: PageContext, topics: Sequence[str], now: Callable[[], float] = time.time
    ) -> None:
        super().__init__("command pages")
        self._context = context
        self._topics = topics
        self._since = int((now() - _BACK_DAYS * 86400) * 1000)
        self._book = CommandBook()
        self._lock = threading.Lock()
        self._problem = "the topics have not been read yet"
        self._problems = 0

    @property
    def version(self) -> int:
        """Grows with the book's version and with each change of ``problem``. It needs no lock."""
        return self._book.version + self._problems

    @property
    def problem(self) -> str:
        """Why the history may be incomplete; empty if all was read."""
        return self._problem

    @property
    def complete_from(self) -> int:
        """The time from which on the book has every command, in microseconds."""
        return max(self._since * 1000, self._book.dropped_until)

    @contextmanager
    def book(self) -> Iterator[CommandBook]:
        """Give access to the book inside the block; keep it short, since reading waits."""
        with self._lock:
            yield self._book

    def run(self) -> None:
        """Follow the topics; see ``BackgroundThread.run``."""
        while not self.stopping.is_set():
            try:
                with self._context.topics() as client:
                    self._follow(client)
            except TielineError as error:
                if self._set_problem(str(error)):
                    log.warning("the history of commands cannot be read now: %s", error)
            except Exception:  # a fault of a page must not end it for good
                log.exception("the history of commands cannot be read")
                self._set_problem("an unexpected error; the worker's log has it")
            self.stopping.wait(_RETRY)

    def _follow(self, client: TopicClient) -> None:
        readers: dict[str, TopicFollower] = {
            topic: client.reader(topic, since=self._since) for topic in self._topics
        }
        while not self.stopping.is_set():
            for topic, reader in readers.items():
                for record in reader.poll(_POLL / len(readers)):
                    with self._lock:  # for each record: a page must not wait for all of them
                        self._book.add(record.value, topic)
            if all(reader.at_end for reader in readers.values()):
                self._set_problem("")

    def _set_problem(self, problem: str) -> bool:
        """Set the problem, and return whether it has changed."""
        if problem == self._problem:
            return False
        self._problem = problem
        self._problems += 1
        return True
