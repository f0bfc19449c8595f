"""Checks at intervals whether the broker answers, and whether the topics that sinks read exist.

A consumer of an unavailable broker, or of a topic that does not exist, gets no error: it looks as if there
were nothing to read.
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
    "there is no such topic, or this user may not see it. It is read from its beginning as soon as it is "
    "created; if it never will be, correct topics in the sink's file"
)


class BrokerWatch:
    """Notes outages of the broker and missing topics, in a thread from ``start`` to ``stop``.

    ``backend``: the broker's name in messages. ``sinks``: by name, what each reads and where its outages are
    noted. ``interval``: seconds between two checks.
    """

    def __init__(
        self,
        broker: Broker,
        backend: str,
        connections: Connections,
        sinks: Mapping[str, tuple[Subscription, Connections]],
        interval: float,
    ) -> None:
        self._broker = broker
        self._backend = backend
        self._connections = connections
        self._sinks = sinks
        self._interval = interval
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="broker watch", daemon=True)

    def start(self) -> None:
        """Start the thread. It checks the broker after a second, and topics after an interval."""
        self._thread.start()

    def stop(self, timeout: float) -> None:
        """End the thread; wait up to ``timeout`` seconds."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join(timeout)

    def check(self, *, topics: bool = True) -> None:
        """Check once."""
        try:
            existing = self._broker.topic_names(self._interval)
        except TielineError as error:
            if not self._stopping.is_set():
                self._connections.not_connected(self._backend, str(error))
            return
        self._connections.connected(self._backend)
        for subscription, connections in self._sinks.values() if topics else ():
            for system, reason in missing(subscription, existing).items():
                if reason:
                    connections.not_connected(system, reason)
                else:
                    connections.connected(system)

    def _run(self) -> None:
        pause, topics = _FIRST, False
        while not self._stopping.wait(pause):
            try:
                self.check(topics=topics)
            except Exception:  # a bug must not end the reports of outages
                log.exception("the broker could not be asked for its topics")
            pause, topics = self._interval, True


def missing(subscription: Subscription, existing: Collection[str]) -> dict[str, str]:
    """Return for each thing that a sink reads why it does not exist; empty if it does."""
    known = set(existing)
    reasons = {f"the topic {topic}": "" if topic in known else _NO_TOPIC for topic in subscription.topics}
    if subscription.pattern is not None:
        matches = any(re.fullmatch(subscription.pattern, topic) for topic in known)
        reason = "" if matches else "no topic matches it; correct topics.regex, or create a topic"
        reasons[f"topics.regex {subscription.pattern}"] = reason
    return reasons
