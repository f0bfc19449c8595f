"""Whether the broker answers, and whether the topics that sinks read are there: asked every now and then.

A consumer of a broker that is away, or of a topic that is not there, hears nothing: it looks as if there
were nothing to read. So somebody has to ask.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Collection, Mapping

from tieline.api import TielineError
from tieline.broker.port import Broker
from tieline.config.settings import Subscription
from tieline.runtime.task.connections import Connections

log = logging.getLogger(__name__)

_FIRST = 1.0
_NO_TOPIC = (
    "there is no such topic, or this user may not see it. It is read from its beginning as soon as something "
    "creates it; if nothing will, correct topics in the sink's file"
)


class BrokerWatch:
    """A thread from ``start`` to ``stop``; what it finds out is in the ``Connections`` that it is given.

    ``sinks``: what each reads, and where its outages are kept, by its name. ``of_broker``: of the broker.
    """

    def __init__(
        self,
        broker: Broker,
        called: str,
        of_broker: Connections,
        sinks: Mapping[str, tuple[Subscription, Connections]],
        interval: float,
    ) -> None:
        self._broker = broker
        self._called = called
        self._of_broker = of_broker
        self._sinks = sinks
        self._interval = interval
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="broker watch", daemon=True)

    def start(self) -> None:
        """Begin. Whether the broker answers is asked after a second; topics are given an interval to come."""
        self._thread.start()

    def stop(self, timeout: float) -> None:
        """Ask nothing any more."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join(timeout)

    def look(self, *, topics: bool = True) -> None:
        """Ask once."""
        try:
            there = self._broker.topic_names(self._interval)
        except TielineError as error:
            if not self._stopping.is_set():
                self._of_broker.lost(self._called, str(error))
            return
        self._of_broker.found(self._called)
        for subscription, connections in self._sinks.values() if topics else ():
            for to, because in missing(subscription, there).items():
                if because:
                    connections.lost(to, because)
                else:
                    connections.found(to)

    def _run(self) -> None:
        pause, topics = _FIRST, False
        while not self._stopping.wait(pause):
            try:
                self.look(topics=topics)
            except Exception:  # a bug must not end what tells of outages
                log.exception("the broker could not be asked for its topics")
            pause, topics = self._interval, True


def missing(subscription: Subscription, there: Collection[str]) -> dict[str, str]:
    """What a sink reads → why it is not there; empty: it is."""
    known = set(there)
    found = {f"the topic {topic}": "" if topic in known else _NO_TOPIC for topic in subscription.topics}
    if subscription.pattern is not None:
        matches = any(re.fullmatch(subscription.pattern, topic) for topic in known)
        because = "" if matches else "no topic matches it; correct topics.regex, or create a topic"
        found[f"topics.regex {subscription.pattern}"] = because
    return found
